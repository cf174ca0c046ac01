// What the reader has chosen. The address says it too, so that a view can be linked to: #trial=KEY&x=macs.
const RANGES = { all: Infinity, 10: 10, 3: 3 };
const state = { x: data.axes[0], range: "all", selected: null, hidden: new Set() };
const listeners = [];
const onChange = (listener) => listeners.push(listener);

function change(values) {
  Object.assign(state, values);
  const words = new URLSearchParams();
  if (state.selected !== null) {
    words.set("trial", trials.keys[state.selected]);
    if (data.compared) words.set("sweep", sweepOf(state.selected).name);
  }
  if (state.x && state.x !== data.axes[0]) words.set("x", short(state.x).toLowerCase());
  if (state.range !== "all") words.set("range", state.range);
  try {
    history.replaceState(null, "", `#${words}`);
  } catch { /* the page is shown in a frame that has no address */ }
  for (const listener of listeners) listener(values);
}
function placeOf(key, sweep) {
  return trials.keys.findIndex((one, place) => one === key && (!sweep || sweepOf(place).name === sweep));
}
function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const axis = data.axes.find((one) => short(one).toLowerCase() === words.get("x"));
  const place = words.has("trial") ? placeOf(words.get("trial"), words.get("sweep")) : -1;
  if (axis) state.x = axis;
  if (Object.hasOwn(RANGES, words.get("range") || "")) state.range = words.get("range");
  if (["light", "dark"].includes(words.get("theme"))) document.documentElement.dataset.theme = words.get("theme");
  if (place >= 0) state.selected = place;
  return place >= 0;
}
const frontsNow = () => (data.fronts[state.x] || []).filter((front) => (data.compared ? front.group >= 0 : front.group < 0));
const frontPlaces = () => frontsNow().filter((f) => !state.hidden.has(f.group)).flatMap((front) => front.places);
const answersNow = () => data.answers[state.x] || [];
function recommended() {
  const rows = answersNow().flat();
  const found = rows.find((row) => row.drop === 1 && row.place !== null) || rows.find((row) => row.place !== null);
  const places = frontPlaces();
  return found ? found.place : places.length ? places[places.length - 1] : null;
}
