// The parts below the front; one that has nothing to show is not there.
const section = (title, about) => el("section", {}, el("h2", {}, title), about && el("p", { class: "about" }, about));
const panels = () => el("div", { class: "panels" });
const scoreDomain = () => extent([...trials.metrics[score.name], ...data.sweeps.map((s) => s.original[score.name] ?? null)], 0.04);

function frontTable() {
  const names = [score.name, tested].filter((name) => trials.metrics[name]);
  const body = el("tbody", {});
  const draw = () => body.replaceChildren(...[...frontPlaces()].sort((a, b) => score.sign * (measured(b, score.name) - measured(a, score.name))).map((place) => el("tr", { class: place === state.selected ? "chosen" : null },
    el("th", { scope: "row" }, pick(place, inWords(place))), data.compared && el("td", { class: "words" }, sweepOf(place).name),
    names.map((name) => el("td", {}, show(place, name, false))), data.axes.map((axis) => el("td", {}, share(100 * measured(place, axis)))), el("td", { class: "words wide" }, others(place)))));
  onChange(draw);
  draw();
  const heads = [...names.map((name) => (name === score.name ? score.head : "test")), ...data.axes.map((axis) => `${short(axis)} %`)];
  const table = el("table", { class: "rows" }, el("thead", {}, el("tr", {}, el("th", { class: "words" }, "trial"), data.compared && el("th", { class: "words" }, "sweep"), heads.map((head) => el("th", {}, head)), el("th", { class: "words wide" }, "with"))), body);
  return fill(section("The front, trial by trial"), {}, [el("div", { class: "across", tabindex: 0, role: "region", "aria-label": "The front as a table" }, table)]);
}
const pick = (place, words) => el("button", { type: "button", class: "link", onclick: () => change({ selected: place }) }, words);

function groupFronts() {
  if (data.compared || groups.length < 2) return null;
  const found = section("Fronts per decomposition", "Dots: the decomposition's trials. Thin line: the front of all of them.");
  const host = panels();
  found.append(host);
  const draw = () => {
    host.replaceChildren();
    const domain = { x: sizeDomain([...trials.metrics[state.x], 1]), y: scoreDomain() };
    const pairs = (places) => places.map((place) => [measured(place, state.x), measured(place, score.name), place]);
    const [all, ...own] = data.fronts[state.x];
    for (const front of own) {
      const group = groups[front.group];
      const cloud = pairs([...trials.keys.keys()].filter((place) => trials.group[place] === front.group && measured(place, state.x) !== null));
      chart(host, { title: `${group.name} · ${plural(group.trials, "trial")}`, label: `Front of ${group.name}`, cloud,
        x: { domain: domain.x, log: true, format: (value) => `${Number((100 * value).toPrecision(3))}` }, y: { domain: domain.y },
        lines: [{ points: pairs(all.places), colour: () => css("--quiet"), step: true, faint: true }, { points: pairs(front.places), colour: () => tint(front.group), step: true }] });
    }
    host.append(el("p", { class: "about full" }, `Across: ${metrics[state.x].label}, % of the original. Up: ${score.title}.`));
  };
  onChange((values) => { if ("x" in values) draw(); });
  later.push(draw);
  return found;
}
const later = [];

function curveSection(title, { curves, note }, xLabel, panelName, colourOf, named) {
  const lines = curves.filter((curve) => curve.points.length > 1);
  if (!lines.length) return null;
  const found = section(title, note);
  const host = panels();
  const domain = extent(curves.flatMap((curve) => curve.points.map(([at]) => at)), 0.02);
  const panelNames = [...new Set(curves.map((curve) => curve.panel))];
  const lineNames = [...new Set(curves.map((curve) => curve.line))];
  found.append(legend(lineNames.map((name) => [named ? `ratio ${name}` : name, () => colourOf(name, lineNames)])), host);
  later.push(() => {
    for (const panel of panelNames)
      chart(host, { title: panelNames.length > 1 || !named ? `${panelName} ${panel}` : panel, label: `${title}, ${panelName} ${panel}`, height: 190,
        x: { domain, format: String, label: xLabel }, y: { domain: scoreDomain() },
        lines: curves.filter((curve) => curve.panel === panel).map((curve) => ({ points: curve.points, colour: () => colourOf(curve.line, lineNames) })) });
  });
  return found;
}
const groupColour = (name) => { const at = groups.findIndex((group) => group.name === name); return data.compared || at < 0 ? css("--ink") : tint(at); };
function ramp(name, all) {
  const share = all.length > 1 ? all.indexOf(name) / (all.length - 1) : 0;
  return isDark() ? `hsl(${200 - 150 * share} 75% ${78 - 10 * share}%)` : `hsl(${215 - 190 * share} 70% ${26 + 14 * share}%)`;
}

function volumes() {
  const drawn = data.sweeps.filter((sweep) => sweep.history.length > 1);
  if (!drawn.length) return null;
  const found = section("Hypervolume over the trials", score.points ? `The area that the front dominates (fraction of the parameters × ${score.word} in percent, at most 100), as trials ended.` : `The area that the front dominates (fraction of the parameters × ${score.word}, down to ${shown(score.worst)}), as trials ended.`);
  const host = el("div", { class: "broad" });
  const colour = (sweep) => () => (data.compared ? tint(data.sweeps.indexOf(sweep)) : css("--accent"));
  if (data.compared) found.append(legend(drawn.map((sweep) => [sweep.name, colour(sweep)])));
  found.append(host);
  const points = drawn.flatMap((sweep) => sweep.history);
  later.push(() => chart(host, { label: "Hypervolume over the trials", height: 200,
    x: { domain: [0, Math.max(...points.map(([at]) => at))], format: (value) => grouped(value, 0), label: "trials ended" }, y: { domain: extent(points.map(([, v]) => v), 0.06) },
    lines: drawn.map((sweep) => ({ points: sweep.history, colour: colour(sweep), step: true, dotted: false })) }));
  return found;
}

function importances() {
  const parts = data.sweeps.filter((sweep) => sweep.importance.shares.length || !data.compared);
  if (!parts.length) return null;
  const found = section(`What the ${score.word} depends on`);
  for (const { name, importance } of parts) {
    const most = Math.max(...importance.shares.map(([, value]) => value), 1e-9);
    const rows = importance.shares.map(([label, value]) => {
      const bar = el("i", {});
      bar.style.width = `${(100 * value) / most}%`;
      return el("tr", {}, el("th", { scope: "row", title: label }, label), el("td", { class: "bar" }, el("span", { class: "plain" }, bar)), el("td", {}, `${(100 * value).toFixed(0)} %`));
    });
    found.append(data.compared ? el("h3", {}, name) : "", rows.length ? el("table", { class: "widths broad" }, el("tbody", {}, rows)) : "", el("p", { class: "about" }, importance.note));
  }
  return found;
}

function troubles() {
  const found = section("What was left out, and why");
  for (const sweep of data.sweeps) {
    if (data.compared) found.append(el("h3", {}, sweep.name));
    const layers = ({ layers: names }) => names.slice(0, 12).join(", ") + (names.length > 12 ? ` and ${names.length - 12} more` : "");
    const table = (heads, rows) => el("div", { class: "across" }, el("table", { class: "rows reasons" }, el("thead", {}, el("tr", {}, heads.map((head, i) => el("th", { class: i ? null : "words" }, head)))), el("tbody", {}, rows)));
    const row = (words, number) => el("tr", {}, el("td", { class: "words" }, words), el("td", {}, grouped(number, 0)));
    if (sweep.failures.length) found.append(table(["trials that failed", "trials"], sweep.failures.map(([reason, number]) => row(reason, number))));
    else found.append(el("p", {}, sweep.trials ? "No trial failed." : "There is no trial yet."));
    if (sweep.more_failures) found.append(el("p", { class: "about" }, `and ${plural(sweep.more_failures, "other reason")}`));
    found.append(el("p", {}, sweep.stopped ? `The race stopped ${plural(sweep.stopped, "trial")} early: they were beaten, and have no ${score.word}.` : "No trial was stopped early."));
    if (sweep.skipped.length) found.append(table(["layers that were left alone", "trials"], sweep.skipped.map((one) => row([el("strong", {}, layers(one)), `: ${one.reason}`], one.trials))));
  }
  return found;
}

function provenance() {
  const parts = data.sweeps.filter((sweep) => sweep.facts.length);
  if (!parts.length) return null;
  const found = section("Where this comes from");
  for (const sweep of parts) found.append(data.compared ? el("h3", {}, sweep.name) : "", el("dl", { class: "facts" }, sweep.facts.map(([label, value]) => [el("dt", {}, label), el("dd", {}, value)])));
  return found;
}
