// Parallel coordinates: what was varied, and what came of it. A click on a value keeps the trials that have it.
function makeParallel(host) {
  const varied = trials.fields.filter((field) => field.varied && field.name !== "seed").slice(0, 9);
  if (varied.length < 2 || count < 2) return;
  const measures = ["params_fraction", score.name];
  const kept = new Map();
  const canvas = el("canvas", { "aria-hidden": "true" });
  const layer = shape("svg", { role: "group", "aria-label": "Values of the parameters that were varied" });
  const plot = el("div", { class: "plot parallel" }, canvas, layer);
  const said = el("span", { class: "quiet", role: "status" });
  host.append(plot, said);

  const columns = [...varied.map(fieldColumn), ...measures.map(measureColumn)];
  function fieldColumn(field) {
    const domain = field.numeric && field.values.length > 1 ? extent(field.values) : [0, field.values.length - 1];
    const absent = typeof field.index !== "number" && field.index.includes(-1);
    const height = (value, index) => {
      if (value === null) return 1;
      const share = field.numeric ? (value - domain[0]) / (domain[1] - domain[0]) : index / Math.max(1, field.values.length - 1);
      return (1 - share) * (absent ? 0.86 : 1);
    };
    const at = (place) => { const index = typeof field.index === "number" ? field.index : field.index[place]; return height(index < 0 ? null : field.values[index], index); };
    const many = field.values.length > 9;
    const ticks = field.values.map((value, index) => ({ text: shown(value), at: height(value, index), index }))
      .filter((_, index) => !many || index % Math.ceil(field.values.length / 8) === 0);
    if (absent) ticks.push({ text: "not used", at: 1, index: -1 });
    const valueOf = (place) => (typeof field.index === "number" ? field.index : field.index[place]);
    return { name: field.name, at, ticks, valueOf };
  }
  function measureColumn(name) {
    const log = name !== score.name;
    const domain = log ? sizeDomain(trials.metrics[name]) : extent(trials.metrics[name], 0.02);
    const scale = (log ? logarithmic : linear)(domain, [1, 0]);
    const ticks = scale.ticks(6).filter((v) => v >= domain[0] && v <= domain[1]).map((value) => ({ text: log ? `${Number((100 * value).toPrecision(3))} %` : String(value), at: scale(value), index: null }));
    return { name: log ? "params left" : score.head, at: (place) => scale(Math.max(trials.metrics[name][place], domain[0])), ticks, valueOf: () => null };
  }
  const passes = (place) => [...kept].every(([column, index]) => columns[column].valueOf(place) === index);

  function draw() {
    const width = Math.max(plot.clientWidth, 108 * columns.length);
    const height = 270;
    const [top, bottom] = [34, height - 12];
    const left = (column) => 14 + (column * (width - 110)) / (columns.length - 1);
    for (const node of [canvas, layer]) { node.style.width = `${width}px`; node.style.height = `${height}px`; }
    layer.setAttribute("viewBox", `0 0 ${width} ${height}`);
    layer.replaceChildren();
    const ratio = devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    let through = 0;
    const trace = (place, alpha, thick) => {
      pen.globalAlpha = alpha;
      pen.lineWidth = thick;
      pen.strokeStyle = tint(trials.group[place]);
      pen.beginPath();
      columns.forEach((column, i) => { const y = top + column.at(place) * (bottom - top); if (i) pen.lineTo(left(i), y); else pen.moveTo(left(i), y); });
      pen.stroke();
    };
    const alpha = Math.max(0.04, Math.min(0.5, 60 / count));
    for (let place = 0; place < count; place += 1) {
      const inside = passes(place) && !state.hidden.has(trials.group[place]);
      through += inside;
      if (inside) trace(place, kept.size ? Math.min(0.6, alpha * 4) : alpha, 1);
    }
    for (const place of frontPlaces()) if (passes(place)) trace(place, 0.95, 2);
    if (state.selected !== null) { pen.setLineDash([5, 3]); trace(state.selected, 1, 3); pen.setLineDash([]); }
    said.textContent = kept.size ? `${plural(through, "trial")} have what was clicked; click again to take them all.` : "Thick: the front. Dashed: the chosen trial. Click a value to keep only the trials that have it.";
    columns.forEach((column, i) => drawAxis(column, i, left(i), top, bottom));
  }
  function drawAxis(column, i, x, top, bottom) {
    layer.append(shape("line", { x1: x, x2: x, y1: top, y2: bottom, class: "axis" }), shape("text", { x: x - 4, y: 14, class: "label" }, column.name.length > 17 ? `${column.name.slice(0, 16)}…` : column.name));
    for (const tick of column.ticks) {
      const y = top + tick.at * (bottom - top);
      const live = tick.index !== null;
      const pick = () => { if (kept.get(i) === tick.index) kept.delete(i); else kept.set(i, tick.index); draw(); };
      const text = tick.text.length > 15 ? `${tick.text.slice(0, 14)}…` : tick.text;
      layer.append(shape("text", {
        x: x + 6, y: y + 4, class: `tick halo${live ? " live" : ""}${kept.has(i) && kept.get(i) === tick.index ? " chosen" : ""}`,
        role: live ? "button" : null, tabindex: live ? 0 : null, "aria-label": live ? `${column.name} ${tick.text}` : null,
        "aria-pressed": live ? String(kept.get(i) === tick.index) : null, onclick: live ? pick : null,
        onkeydown: live ? (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } } : null,
      }, text));
    }
  }
  redraws.push(draw);
  onChange(draw);
  draw();
}
