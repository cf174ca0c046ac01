// One trial: what it is, what it reached, how wide its layers are, and the command that exports it.
const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`);
function exportCommand(place) {
  const { export: begin } = sweepOf(place);
  return begin ? `${begin} --trial ${quoted(trials.keys[place])}` : "";
}

function makePanel(host) {
  function draw() {
    const place = state.selected;
    if (place === null) {
      host.replaceChildren(el("p", { class: "quiet" }, count ? "Click a point to see its trial." : "There is no trial to look at yet."));
      return;
    }
    const parts = [
      el("div", { class: "head" }, el("h2", { id: "trial", tabindex: -1 }, inWords(place)), steps(place)),
      el("p", { class: "quiet" }, [data.compared && sweepOf(place).name, others(place), `trial ${trials.keys[place]}`].filter(Boolean).join(" · ")),
      results(place),
      exporting(place),
      widths(place),
      notes(place),
      configuration(place),
    ];
    host.replaceChildren(...parts.filter(Boolean));
  }
  onChange((values) => {
    if (!("selected" in values || "x" in values)) return;
    draw();
    const title = host.querySelector("#trial");
    if (values.focusing && title) title.focus();
    else if ("selected" in values && title && innerWidth < 900) host.scrollIntoView({ block: "start" });
  });
  return draw;
}
// along the front, from the panel
function steps(place) {
  const places = frontPlaces();
  const here = places.indexOf(place);
  if (here < 0) return el("span", { class: "badge quiet" }, "not on the front");
  const step = (by, name, sign) =>
    el("button", { type: "button", "aria-label": name, title: name, disabled: !(here + by in places),
      onclick: () => { change({ selected: places[here + by] }); const again = document.querySelector(`[aria-label="${name}"]`); if (again) again.focus({ preventScroll: true }); } }, sign);
  return el("span", { class: "steps" }, step(-1, "smaller, along the front", "‹"), step(1, "larger, along the front", "›"));
}
function results(place) {
  const { original } = sweepOf(place);
  const rows = [];
  for (const name of [score.name, tested]) {
    if (measured(place, name) === null) continue;
    const before = original[name];
    rows.push([name === score.name ? score.word : `test ${score.word}`, show(place, name), before === undefined ? "" : `${signed(measured(place, name) - before)}${score.points ? " points" : ""}`]);
  }
  for (const axis of ["params", "macs", "bytes", "latency_ms", "idle_latency_ms"]) {
    const left = measured(place, `${axis.replace("_ms", "")}_fraction`);
    if (measured(place, axis) === null && left === null) continue;
    rows.push([{ params: "parameters", macs: "MACs", bytes: "bytes", latency_ms: "latency", idle_latency_ms: "idle latency" }[axis], show(place, axis), left === null ? "" : `${share(100 * left)} %`]);
  }
  return el("table", { class: "results" }, el("tbody", {}, rows.map(([name, value, left]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value), el("td", {}, left)))));
}
function exporting(place) {
  const command = exportCommand(place);
  if (!command) return null;
  const said = el("span", { class: "quiet", role: "status" });
  const button = el("button", { type: "button", onclick: async () => { said.textContent = (await copied(command)) ? "copied" : "select it and copy it"; } }, "Copy");
  return el("div", { class: "export" }, el("h3", {}, "Export it"), el("code", { id: "export", tabindex: 0 }, command), button, said);
}
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "offstage", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
function widths(place) {
  const detail = trials.details[place];
  const title = el("h3", {}, "Channels kept, per layer");
  if (!detail) return el("div", {}, title, el("p", { class: "quiet" }, "Left out of this page to keep it small."));
  if (!detail[0].length) return null;
  const rows = detail[0].map(([site, kept]) => {
    const [name, size] = trials.sites[site];
    const bar = el("i", {});
    bar.style.width = `${(100 * kept) / (size || 1)}%`;
    bar.style.background = tint(data.compared ? -1 : trials.group[place]);
    return el("tr", {}, el("th", { scope: "row", title: name }, name), el("td", { class: "bar" }, el("span", {}, bar)), el("td", {}, `${grouped(kept, 0)} / ${grouped(size, 0)}`));
  });
  const scrolls = rows.length > 9;
  return el("div", {}, title, el("div", { class: scrolls ? "scroll" : null, tabindex: scrolls ? 0 : null, role: scrolls ? "region" : null, "aria-label": scrolls ? "Channels kept, per layer" : null },
    el("table", { class: "widths" }, el("tbody", {}, rows))));
}
function notes(place) {
  const detail = trials.details[place];
  if (!detail || !detail[1].length) return null;
  return el("div", {}, el("h3", {}, "Notes"), el("ul", {}, detail[1].map((note) => el("li", {}, note))));
}
function configuration(place) {
  const rows = trials.fields.map((field) => [field, settingOf(field, place)]).filter(([, value]) => value !== null);
  const term = ([field, value]) => [el("dt", {}, field.name), el("dd", {}, shown(value))];
  const varied = rows.filter(([field]) => field.varied);
  const fixed = rows.filter(([field]) => !field.varied);
  return el("div", {}, el("h3", {}, "Configuration"), el("dl", {}, varied.map(term)),
    fixed.length > 0 && el("details", {}, el("summary", {}, `${fixed.length} more, which were not varied`), el("dl", {}, fixed.map(term))));
}
