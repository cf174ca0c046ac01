// The page: headline, answers, front and panel, then the sections.
function segmented(label, choices, current, choose) {
  const buttons = choices.map(([value, text]) => el("button", { type: "button", "aria-pressed": String(value === current()), onclick: () => { choose(value); for (const [i, b] of buttons.entries()) b.setAttribute("aria-pressed", String(choices[i][0] === current())); } }, text));
  return el("div", { class: "segmented", role: "group", "aria-label": label }, buttons);
}
function groupButtons() {
  if (groups.length < 2) return null;
  const paint = () => buttons.forEach((button, i) => { button.firstChild.style.background = tint(i); });
  const buttons = groups.map((group, i) => el("button", { type: "button", "aria-pressed": "true", onclick: (event) => {
    const hidden = new Set(state.hidden);
    if (!hidden.delete(i)) hidden.add(i);
    event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(i)));
    change({ hidden });
  } }, el("i", {}), group.name));
  redraws.push(paint);
  paint();
  return el("div", { class: "groups", role: "group", "aria-label": data.compared ? "sweeps shown" : "decompositions shown" }, buttons);
}
function answers(host) {
  const single = (rows) => {
    const names = [score.name, tested].filter((name) => trials.metrics[name]);
    const head = ["at most", ...data.axes.map((axis) => short(axis)), ...names.map((name) => (name === score.name ? score.word : "test")), "how"];
    const kind = (i) => (i === 0 || i === head.length - 1 ? "words" : data.axes[i - 1] === state.x ? "now" : i <= data.axes.length || head[i] === "test" ? "wide" : "");
    const cells = (row) => row.place === null ? [el("td", { colspan: head.length - 1, class: "words quiet" }, "no trial")] : [
      ...data.axes.map((axis, i) => el("td", { class: kind(i + 1) }, `${share(100 * measured(row.place, axis))} %`)),
      ...names.map((name) => el("td", { class: name === score.name ? null : "wide" }, show(row.place, name))),
      el("td", { class: "words" }, pick(row.place, inWords(row.place)))];
    return el("table", { class: "rows answers" }, el("caption", {}, `The smallest network that loses at most so much ${score.word}, on the split that was searched`),
      el("thead", {}, el("tr", {}, head.map((name, i) => el("th", { class: kind(i) }, name)))),
      el("tbody", {}, rows.map((row) => el("tr", { class: row.place !== null && row.place === state.selected ? "chosen" : null }, el("th", { scope: "row" }, `${row.drop} ${row.drop === 1 ? "point" : "points"}`), cells(row)))));
  };
  const several = (columns) => el("table", { class: "rows answers" }, el("caption", {}, `The smallest share of ${data.nouns[state.x]} that loses at most so much ${score.word}`),
    el("thead", {}, el("tr", {}, el("th", { class: "words" }, "sweep"), columns[0].map((row) => el("th", {}, `${row.drop} ${row.drop === 1 ? "point" : "points"}`)), el("th", {}, "hypervolume"))),
    el("tbody", {}, columns.map((rows, i) => el("tr", {}, el("th", { scope: "row" }, data.sweeps[i].name), rows.map((row) => el("td", {}, row.place === null ? "–" : pick(row.place, `${share(100 * measured(row.place, state.x))} %`))),
      el("td", {}, ((data.fronts[state.x].find((front) => front.group === i) || {}).hypervolume ?? 0).toFixed(2))))));
  const draw = () => host.replaceChildren(answersNow().flat().length ? el("div", { class: "across" }, data.compared ? several(answersNow()) : single(answersNow()[0])) : "");
  onChange(draw);
  draw();
}

const titled = (text) => text[0].toUpperCase() + text.slice(1);

function build() {
  document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const linked = readAddress();
  if (!linked && count) state.selected = recommended();
  const page = document.getElementById("page");
  const theme = el("button", { type: "button", class: "theme", onclick: () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; theme.textContent = isDark() ? "Light" : "Dark"; refresh(); } }, isDark() ? "Light" : "Dark");
  theme.setAttribute("aria-label", "change between light and dark");
  const claim = el("p", { class: "claim", id: "claim" });
  const say = () => claim.replaceChildren(...(data.headlines[state.x] || data.sweeps.map(() => "No trial has finished with a result.")).map((text, i) => el("span", {}, data.compared && el("b", {}, `${data.sweeps[i].name}: `), text)));
  const table = el("div", { class: "answer" });
  const plot = el("div", { class: "plot front" });
  const panel = el("aside", { class: "panel", tabindex: 0, "aria-label": "the chosen trial" });
  page.append(
    el("header", {}, el("div", { class: "head" }, el("h1", {}, data.title), theme), el("p", { class: "quiet" }, data.subtitle), data.remarks.map((text) => el("p", { class: "remark" }, text)), claim),
    el("main", {}, count ? [table, el("div", { class: "front-row" }, el("div", { class: "card" },
      el("div", { class: "controls" }, segmented("size on the x axis", data.axes.map((axis) => [axis, short(axis)]), () => state.x, (x) => change({ x })),
        score.points && segmented("scores shown", [["all", "all"], ["10", "−10 points"], ["3", "−3"]], () => state.range, (range) => change({ range }))), groupButtons(), plot), panel)] : null),
    tooltip);
  onChange(say);
  say();
  const main = page.querySelector("main");
  let drawFront = () => {};
  if (count) {
    answers(table);
    const drawPanel = makePanel(panel);
    drawPanel();
    redraws.push(drawPanel);
    drawFront = makeFront(plot);
    drawFront();
    const coordinates = section("What was varied, and what came of it");
    main.append(...[frontTable(), groupFronts(),
      curveSection(`${titled(score.word)} against ratio`, data.by_ratio, "ratio: share of the channels removed", "criterion", groupColour),
      curveSection(`${titled(score.word)} against threshold`, data.by_threshold, "threshold", "", ramp, true)].filter(Boolean), coordinates,
    ...[importances(), volumes()].filter(Boolean));
    for (const draw of later) draw();
    makeParallel(coordinates);
    if (!coordinates.querySelector("canvas")) coordinates.remove();
  }
  main.append(...[troubles(), provenance()].filter(Boolean));
  function refresh() { drawFront(); for (const draw of redraws) draw(); }
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; refresh(); } });
  addEventListener("scroll", hush, { passive: true });
  addEventListener("hashchange", () => { if (readAddress()) change({ selected: state.selected, x: state.x }); });
  document.documentElement.dataset.ready = "yes";
}
build();
