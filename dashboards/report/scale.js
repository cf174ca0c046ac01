// Scales: from a value to a pixel, with round ticks.
function linear([low, high], [from, to]) {
  const factor = (to - from) / (high - low || 1);
  const scale = (value) => from + (value - low) * factor;
  scale.ticks = (wanted) => {
    const rough = (high - low) / Math.max(wanted, 1);
    const power = 10 ** Math.floor(Math.log10(rough || 1));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((size) => size >= rough) || rough;
    const first = Math.ceil(low / step - 1e-9);
    const last = Math.floor(high / step + 1e-9);
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  };
  return scale;
}
function logarithmic([low, high], range) {
  const inner = linear([Math.log(low), Math.log(high)], range);
  const scale = (value) => inner(Math.log(value));
  scale.ticks = (wanted) => {
    for (const steps of [[1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]]) {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
        for (const step of steps) {
          const value = Number((step * 10 ** power).toPrecision(6));
          if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
        }
      if (found.length < 3) return linear([low, high], range).ticks(wanted).filter((value) => value > 0);
      if (found.length <= wanted) return found;
    }
    return [low, high];
  };
  return scale;
}
function extent(values, padding = 0) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values)
    if (value !== null && Number.isFinite(value)) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  if (low > high) return [0, 1];
  const room = padding * (high - low || Math.abs(high) || 1);
  return [low - room, high + room];
}
// Sizes are shown on a logarithmic axis; what is not above zero stands at its left end.
function sizeDomain(values) {
  const positive = values.filter((value) => value !== null && value > 0);
  const [low, high] = positive.length ? extent(positive) : [0.1, 1];
  const factor = (Math.max(high, low * 1.5) / low) ** 0.04;
  return [low / factor, Math.max(high, low * 1.5) * factor];
}
// Places by pixel cell, so that the nearest of thousands is found at once.
function gridOf(points, cell = 24) {
  const cells = new Map();
  const name = (x, y) => `${Math.floor(x / cell)},${Math.floor(y / cell)}`;
  for (const point of points) {
    const key = name(point.x, point.y);
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(point);
  }
  return (x, y, reach) => {
    let best = null;
    let least = reach * reach;
    for (let dx = -1; dx <= 1; dx += 1)
      for (let dy = -1; dy <= 1; dy += 1)
        for (const point of cells.get(name(x + dx * cell, y + dy * cell)) || []) {
          const distance = (point.x - x) ** 2 + (point.y - y) ** 2 - (point.onFront ? 40 : 0);
          if (distance <= least) [best, least] = [point, distance];
        }
    return best;
  };
}
