// The front: every trial a light dot on a canvas; axes, front and what can be focused as SVG above it.
const tooltip = el("div", { class: "tooltip", hidden: true, "aria-hidden": "true" });

function tell(place, x, y) {
  const onTest = measured(place, tested);
  const rows = [
    el("strong", {}, inWords(place)),
    data.compared && el("span", {}, sweepOf(place).name),
    el("span", {}, `${score.word} ${show(place, score.name)} (${signed(-score.sign * measured(place, lost) || 0)})`),
    onTest !== null && el("span", {}, `test ${score.word} ${written(tested, onTest)}`),
    el("span", {}, data.axes.filter((axis) => measured(place, axis) !== null)
      .map((axis) => `${short(axis)} ${share(100 * measured(place, axis))} %`).join(", ")),
    others(place) && el("span", {}, others(place)),
  ];
  tooltip.replaceChildren(...rows.filter(Boolean));
  tooltip.hidden = false;
  const box = tooltip.getBoundingClientRect();
  const left = x + 16 + box.width > innerWidth ? x - 16 - box.width : x + 16;
  tooltip.style.left = `${Math.max(6, Math.min(left, innerWidth - box.width - 6))}px`;
  tooltip.style.top = `${Math.max(6, Math.min(y - box.height / 2, innerHeight - box.height - 6))}px`;
}
const hush = () => { tooltip.hidden = true; };

function makeFront(host) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  const layer = shape("svg", { role: "group", "aria-label": "Front: arrow keys go along it, Enter opens a trial" });
  host.append(canvas, layer);
  let nearest = () => null;
  let ring = null;
  let at = new Map();

  function domains() {
    const originals = data.sweeps.map((sweep) => sweep.original[score.name]).filter((value) => value !== undefined);
    const [low, high] = extent([...trials.metrics[score.name], ...originals], 0.04);
    const floor = Math.max(...originals, -Infinity) - RANGES[state.range];
    const spread = state.range === "all" ? [low, high + 0.03 * (high - low)] : [floor, Math.max(high, floor + 1)];
    return { x: sizeDomain([...trials.metrics[state.x], 1]), y: spread };
  }

  let drawn = [0, 0];
  function draw() {
    const width = host.clientWidth;
    const height = host.clientHeight;
    drawn = [width, height];
    const box = { left: 46, right: width - 14, top: 14, bottom: height - 42 };
    const domain = domains();
    const x = logarithmic(domain.x, [box.left + 6, box.right - 8]);
    const y = linear(domain.y, [box.bottom - 4, box.top]);
    layer.setAttribute("viewBox", `0 0 ${width} ${height}`);
    layer.replaceChildren();
    axes(layer, box, x, y, `${metrics[state.x].label} (% of the original, logarithmic)`, score.title);
    const visible = [];
    const onFront = new Set(frontPlaces());
    at = new Map();
    for (let place = 0; place < count; place += 1) {
      const size = trials.metrics[state.x][place];
      const reached = trials.metrics[score.name][place];
      if (size === null || reached < domain.y[0] || state.hidden.has(trials.group[place])) continue;
      const point = { place, x: x(Math.max(size, domain.x[0])), y: y(reached), onFront: onFront.has(place) };
      visible.push(point);
      at.set(place, point);
    }
    nearest = gridOf(visible);
    dots(canvas, width, height, visible);
    originals(x, y, box, domain);
    for (const front of frontsNow()) if (!state.hidden.has(front.group)) line(front);
    ring = shape("circle", { r: 10, class: "ring", cx: -99, cy: -99 });
    layer.append(ring);
    markers();
    mark();
  }
  function line(front) {
    const points = front.places.map((place) => at.get(place)).filter(Boolean);
    if (!points.length) return;
    let path = `M${points[0].x},${points[0].y}`;
    for (const point of points.slice(1)) path += `H${point.x}V${point.y}`;
    layer.append(shape("path", { d: path, class: "frontline", stroke: tint(front.group) }));
  }
  function markers() {
    const places = frontPlaces().filter((place) => at.has(place));
    const entry = places.includes(state.selected) ? state.selected : places[0];
    for (const place of places) {
      const point = at.get(place);
      const name = `${inWords(place)}: ${score.word} ${show(place, score.name)}, ${share(100 * measured(place, state.x))} % of ${data.nouns[state.x]}`;
      const marker = shape("circle", {
        cx: point.x, cy: point.y, r: 6, fill: tint(trials.group[place]), class: "marker", role: "button",
        tabindex: place === entry ? 0 : -1, "aria-label": name, "data-place": place,
        onfocus: () => { const frame = layer.getBoundingClientRect(); tell(place, frame.left + point.x, frame.top + point.y); },
        onblur: hush,
      });
      layer.append(marker);
    }
  }
  function originals(x, y, box, domain) {
    const seen = new Set();
    for (const sweep of data.sweeps) {
      const before = sweep.original[score.name];
      if (before === undefined || seen.has(before) || before < domain.y[0]) continue;
      seen.add(before);
      const height = y(before);
      layer.append(shape("line", { x1: box.left, x2: box.right, y1: height, y2: height, class: "original" }));
      const [px, r] = [x(1), 7];
      layer.append(shape("path", { d: `M${px},${height - r}L${px + r},${height}L${px},${height + r}L${px - r},${height}Z`, class: "diamond" }));
      const name = `original ${written(score.name, before)}`;
      layer.append(shape("text", { x: box.left + 6, y: height < box.top + 16 ? height + 14 : height - 5, class: "note" }, name));
    }
  }
  function mark() {
    const point = at.get(state.selected);
    if (ring) { ring.setAttribute("cx", point ? point.x : -99); ring.setAttribute("cy", point ? point.y : -99); }
  }
  function under(event, reach) {
    const frame = layer.getBoundingClientRect();
    return nearest(event.clientX - frame.left, event.clientY - frame.top, reach);
  }
  layer.addEventListener("pointermove", (event) => {
    const found = under(event, 16);
    layer.style.cursor = found ? "pointer" : "default";
    if (found && event.pointerType !== "touch") tell(found.place, event.clientX, event.clientY);
    else hush();
  });
  layer.addEventListener("pointerleave", hush);
  layer.addEventListener("click", (event) => {
    const found = under(event, 22);
    if (found) { hush(); change({ selected: found.place }); }
  });
  layer.addEventListener("keydown", (event) => {
    const own = event.target.dataset.place;
    if (own === undefined) return;
    const places = frontPlaces().filter((place) => at.has(place));
    const here = places.indexOf(Number(own));
    const steps = { ArrowRight: here + 1, ArrowUp: here + 1, ArrowLeft: here - 1, ArrowDown: here - 1, Home: 0, End: places.length - 1 };
    if (event.key === "Enter" || event.key === " ") change({ selected: Number(own), focusing: true });
    else if (event.key === "Escape") hush();
    else if (event.key in steps) {
      const next = layer.querySelector(`[data-place="${places[Math.max(0, Math.min(places.length - 1, steps[event.key]))]}"]`);
      if (next) next.focus();
    } else return;
    event.preventDefault();
  });
  onChange((values) => { if ("selected" in values && Object.keys(values).every((n) => n === "selected" || n === "focusing")) mark(); else draw(); });
  new ResizeObserver(() => { if (host.clientWidth !== drawn[0] || host.clientHeight !== drawn[1]) draw(); }).observe(host);
  return draw;
}

function dots(canvas, width, height, points, radius = points.length > 1500 ? 2.2 : 3.2) {
  const ratio = devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.globalAlpha = points.length > 1500 ? 0.35 : 0.55;
  for (const group of groups.keys()) {
    pen.fillStyle = tint(group);
    for (const point of points)
      if (trials.group[point.place] === group) {
        pen.beginPath();
        pen.arc(point.x, point.y, radius, 0, 2 * Math.PI);
        pen.fill();
      }
  }
}

function axes(layer, box, x, y, xLabel, yLabel, format = (value) => `${Number((100 * value).toPrecision(3))}`) {
  for (const value of y.ticks((box.bottom - box.top) / 46)) {
    const height = y(value);
    if (height < box.top - 1 || height > box.bottom + 1) continue;
    layer.append(shape("line", { x1: box.left, x2: box.right, y1: height, y2: height, class: "grid" }));
    layer.append(shape("text", { x: box.left - 7, y: height + 4, class: "tick end" }, String(value)));
  }
  for (const value of x.ticks((box.right - box.left) / 56)) {
    const left = x(value);
    if (left < box.left - 1 || left > box.right + 1) continue;
    layer.append(shape("line", { x1: left, x2: left, y1: box.top, y2: box.bottom, class: "grid" }));
    layer.append(shape("text", { x: left, y: box.bottom + 16, class: "tick middle" }, format(value)));
  }
  layer.append(shape("line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "axis" }));
  if (xLabel) layer.append(shape("text", { x: (box.left + box.right) / 2, y: box.bottom + 34, class: "label middle" }, xLabel));
  if (yLabel) layer.append(shape("text", { x: -(box.top + box.bottom) / 2, y: 11, class: "label middle", transform: "rotate(-90)" }, yLabel));
}
