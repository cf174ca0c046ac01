// What everything uses: the data, elements, numbers and words. Text becomes text nodes, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const { trials, metrics, groups, score } = data;
const tested = `test_${score.name}`;
const lost = `${score.name}_drop`;
const count = trials.keys.length;
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const shape = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const isDark = () => document.documentElement.dataset.theme === "dark";
const tint = (group) => (group < 0 ? css("--ink") : groups[group][isDark() ? "dark" : "light"]);

const grouped = (value, digits) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const share = (percent) => (percent >= 10 ? percent.toFixed(0) : String(Number(percent.toPrecision(2))));
const measured = (place, name) => (trials.metrics[name] ? trials.metrics[name][place] : null);
const sweepOf = (place) => data.sweeps[data.compared ? trials.group[place] : 0];

function written(name, value, unit = true) {
  if (value === null || value === undefined) return "–";
  const card = metrics[name];
  const text = card.digits === null ? String(Number((card.scale * value).toPrecision(4))) : grouped(card.scale * value, card.digits);
  return unit && card.unit ? `${text} ${card.unit.startsWith("%") ? "%" : card.unit}` : text;
}
const show = (place, name, unit = true) => written(name, measured(place, name), unit);

function shown(value) {
  if (typeof value === "number") return String(Number(value.toPrecision(6)));
  return String(value);
}
function settingOf(field, place) {
  const index = typeof field.index === "number" ? field.index : field.index[place];
  return index < 0 ? null : field.values[index];
}
function setting(place, name) {
  const field = trials.fields.find((one) => one.name === name);
  return field ? settingOf(field, place) : null;
}
function inWords(place) {
  const target = setting(place, "target");
  const ratio = setting(place, "ratio");
  const amount = target !== null ? target : ratio !== null ? `ratio ${shown(ratio)}` : "";
  return [setting(place, "decomposition"), setting(place, "criterion"), amount].filter(Boolean).join(", ");
}
// everything else that was varied, such as threshold 0.45
function others(place) {
  const told = ["sweep", "decomposition", "criterion", "ratio", "target"];
  const fields = trials.fields.filter((field) => field.varied && !told.includes(field.name));
  const pairs = fields.map((field) => [field.name, settingOf(field, place)]).filter(([, value]) => value !== null);
  return pairs.map(([name, value]) => `${name} ${shown(value)}`).join(", ");
}
const signed = (value) => `${value < 0 ? "−" : "+"}${score.points ? Math.abs(value).toFixed(2) : Number(Math.abs(value).toPrecision(3))}`;
const short = (axis) => axis.replace(/_fraction$/, "").replaceAll("_", " ").replace("macs", "MACs");
const plural = (number, noun) => `${grouped(number, 0)} ${noun}${number === 1 ? "" : "s"}`;
