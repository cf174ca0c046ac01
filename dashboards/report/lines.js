// Small plots of lines, drawn at the width they have.
const redraws = [];

function chart(host, { title, label, lines, x, y, cloud = [], height = 176 }) {
  const canvas = cloud.length ? el("canvas", { "aria-hidden": "true" }) : null;
  const layer = shape("svg", { role: "img", "aria-label": label || title });
  const plot = el("div", { class: "plot" }, canvas, layer);
  plot.style.height = `${height}px`;
  host.append(el("figure", { class: "small" }, title && el("figcaption", {}, title), plot));
  const draw = () => {
    const width = plot.clientWidth;
    if (!width) return;
    const box = { left: 38, right: width - 10, top: 8, bottom: height - (x.label ? 40 : 24) };
    const scaleX = (x.log ? logarithmic : linear)(x.domain, [box.left + 4, box.right - 6]);
    const scaleY = linear(y.domain, [box.bottom - 3, box.top]);
    layer.setAttribute("viewBox", `0 0 ${width} ${height}`);
    layer.replaceChildren();
    axes(layer, box, scaleX, scaleY, x.label, "", x.format || String);
    if (canvas) dots(canvas, width, height, cloud.map(([at, value, place]) => ({ x: scaleX(Math.max(at, x.domain[0])), y: scaleY(value), place })), 2);
    for (const one of lines) drawLine(layer, one, scaleX, scaleY, box);
  };
  redraws.push(draw);
  draw();
}
function drawLine(layer, { points, colour, step, faint, dotted, name }, x, y, box) {
  if (!points.length) return;
  const stroke = colour();
  let path = `M${x(points[0][0])},${y(points[0][1])}`;
  for (const [at, value] of points.slice(1)) path += step ? `H${x(at)}V${y(value)}` : `L${x(at)},${y(value)}`;
  layer.append(shape("path", { d: path, class: faint ? "line faint" : "line", stroke }));
  if (name) {
    const [at, value] = points[points.length - 1];
    layer.append(shape("text", { x: Math.min(x(at) + 5, box.right), y: y(value) + 4, class: "note" }, name));
  }
  if (faint || dotted === false) return;
  for (const [at, value, place] of points) {
    const dot = shape("circle", { cx: x(at), cy: y(value), r: 3.4, fill: stroke, class: "dot" });
    if (place !== undefined) {
      dot.classList.add("live");
      dot.addEventListener("pointermove", (event) => tell(place, event.clientX, event.clientY));
      dot.addEventListener("pointerleave", hush);
      dot.addEventListener("click", () => { hush(); change({ selected: place }); });
    }
    layer.append(dot);
  }
}
// What the lines' colours mean.
const legend = (names) => el("p", { class: "legend" }, names.map(([name, colour]) => {
  const swatch = el("i", {});
  const paint = () => { swatch.style.background = colour(); };
  redraws.push(paint);
  paint();
  return el("span", {}, swatch, name);
}));
