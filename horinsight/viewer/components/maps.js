// Shared by what draws maps: painting, limits, legends, and the maps of the position that a pointer is on, which are made
// of the tables that `follow.js` holds. Limits and notes are those of `map_panels.py`.
const NEGLIGIBLE = 1e-20;  // of the largest: as in figures/mixing_maps.py
const UNIFORM = 0.5;  // (largest - least) / mean below which a map without negative values is nearly uniform
const NARROW = '(max-width: 640px)';

const signed = (value) => value === null ? '0' : (value < 0 ? '\u2212' : '+') + Math.abs(value).toExponential(2);
const short = (value) => value.toExponential(1).replace(/e([+-])(\d)$/, (_, sign, digit) => `e${sign}0${digit}`);

function paint(canvas, panel, data) {
  canvas.width = panel.cols;
  canvas.height = panel.rows;
  const context = canvas.getContext('2d');
  const image = context.createImageData(panel.cols, panel.rows), pixels = image.data;
  const colours = data.colours[panel.signed ? 'signed' : 'positive'], opacity = Math.round(255 * data.opacity);
  const {values, low, high} = panel, length = values.length;
  for (let index = 0; index < length; index++) {
    const value = values[index];
    if (value === null) continue;  // beyond the kernel or the window: the picture stays uncovered
    const share = Math.max(0, Math.min(1, (value - low) / (high - low)));
    const from = Math.round(share * 255) * 3, to = index * 4;
    pixels[to] = colours[from];
    pixels[to + 1] = colours[from + 1];
    pixels[to + 2] = colours[from + 2];
    pixels[to + 3] = opacity;
  }
  context.putImageData(image, 0, 0);
  canvas.style.imageRendering = data.smooth ? 'auto' : 'pixelated';
}

// The map of one query, from a block's table: null where the query does not see.
function mapOf(block, i) {
  const {width, values, cells} = block, from = i * width, found = new Array(block.rows * block.cols).fill(null);
  let most = 0;
  for (let a = from; a < from + width; a++) most = Math.max(most, Math.abs(values[a]));
  for (let a = from; a < from + width; a++) {
    const j = cells ? cells[a] : a - from;
    if (j >= 0 && Math.abs(values[a]) > NEGLIGIBLE * most) found[j] = values[a];
  }
  return found;
}

// Limits of some maps and their note, as `map_scale` has them: symmetric where there are negative values.
function limitsOf(maps) {
  let low = Infinity, high = -Infinity, sum = 0, count = 0;
  for (const values of maps) for (const value of values) {
    if (value === null) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
    sum += value;
    count += 1;
  }
  if (low > high) return {low: -1, high: 1, note: 'all 0', uniform: false};
  if (low < 0) {
    const most = Math.max(Math.abs(low), Math.abs(high));
    return {low: -most, high: most, note: `max |h| ${short(most)}`, uniform: false};
  }
  if (high - low < UNIFORM * sum / count) {
    const note = count === 1 ? short(high) : `nearly uniform, ${short(low)} to ${short(high)}`;
    return {low: 0, high, note, uniform: count > 1};
  }
  return {low, high, note: `${short(low)} to ${short(high)}`, uniform: false};
}

// What is shown while position `cell` of a map of `size` is pointed at; null where no table says it.
function followed(data, {cell, size}) {
  const tables = (window.horinsightTables || {})[data.scope];
  if (!tables || tables.stamp !== data.tables) return null;
  const place = cell[0] * size[1] + cell[1];
  const panels = data.panels.map((panel) => {
    const block = tables.blocks[panel.name];
    if (!block || block.places.length !== size[0] * size[1]) return panel;
    const i = block.places[place];
    return {...panel, values: mapOf(block, i), query: [Math.floor(i / block.queryCols), i % block.queryCols]};
  });
  if (panels.every((panel, index) => panel === data.panels[index])) return null;
  const limited = (panel, limits) => ({...panel, ...limits, signed: limits.low < 0});
  const together = data.oneScale && limitsOf(panels.filter((panel) => !panel.apart).map((panel) => panel.values));
  return panels.map((panel, index) => {
    const shared = !panel.apart && together;  // what is of another quantity has a scale of its own
    return panel === data.panels[index] && !shared ? panel : limited(panel, shared || limitsOf([panel.values]));
  });
}

function bar(canvas, colours, opacity) {
  canvas.width = 256;
  canvas.height = 1;
  const context = canvas.getContext('2d');
  const pixels = context.createImageData(256, 1);
  for (let index = 0; index < 256; index++) {
    const colour = colours.slice(index * 3, index * 3 + 3).map((part) => part * opacity + 220 * (1 - opacity));
    pixels.data.set([...colour, 255], index * 4);
  }
  context.putImageData(pixels, 0, 0);
}

// The two legends below maps: numbers at their ends where one scale holds for all that are shown, else words.
function legends(root, panels, data, oneScale) {
  for (const kind of ['signed', 'positive']) {
    const scale = root.querySelector(`.scale.${kind}`);
    const shown = panels.filter((panel) => panel.signed === (kind === 'signed'));
    scale.hidden = !shown.length;
    if (!shown.length) continue;
    const {low, high} = shown[0], zero = shown.some((panel) => panel.uniform) ? ' (0 where nearly uniform)' : '';
    const words = kind === 'signed' ? ['\u2212max |h| of the map', '+max |h|'] : [`least h of the map${zero}`, 'largest h'];
    const numbers = kind === 'signed' ? [`\u2212${short(high)}`, `+${short(high)}`] : [low ? short(low) : '0', short(high)];
    const ends = oneScale ? numbers : words;
    scale.querySelector('.low').textContent = ends[0];
    scale.querySelector('.high').textContent = ends[1];
  }
}

// The place of a pointer on a map: [row, col] as shares of its height and width.
function placeOn(map, event) {
  const box = map.getBoundingClientRect();
  return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
}

const cellOf = (panel, place) =>
  [clamp(Math.floor(place[0] * panel.rows), panel.rows), clamp(Math.floor(place[1] * panel.cols), panel.cols)];
const middleOf = (panel, [row, col]) =>
  [(clamp(row, panel.rows) + 0.5) / panel.rows, (clamp(col, panel.cols) + 0.5) / panel.cols];

// The cells of a map that are marked: what is read, and the query.
function markOn(svg, panel, hovered) {
  svg.setAttribute('viewBox', `0 0 ${panel.cols} ${panel.rows}`);
  svg.replaceChildren();
  if (hovered) outline(svg, cellOf(panel, hovered), '#ffd400', 2);
  outline(svg, panel.query, '#000', 5);
  outline(svg, panel.query, '#fff', 2);
}

// A map is read with a pointer or the arrow keys, and a click or Enter chooses; places are shares of height and width.
function reading(map, panel, {hovered, show, choose}) {
  map.onpointermove = (event) => show(placeOn(map, event));
  map.onpointerleave = () => show(null);
  map.onblur = () => show(null);
  map.onclick = (event) => choose(placeOn(map, event));
  map.onkeydown = (event) => {
    const step = ARROWS[event.key];
    if (event.key === 'Enter' && hovered()) choose(hovered());
    if (!step) return;
    event.preventDefault();
    const [row, col] = hovered() ? cellOf(panel(), hovered()) : panel().query;
    show(middleOf(panel(), [row + step[0], col + step[1]]));
  };
}

// Gets what a pointer asks for, one call a frame however fast it moves; a function that listens no more.
function listening(root, draw) {
  let waiting = false, asked = null;
  const ask = (event) => {
    asked = event.detail;
    if (!waiting) requestAnimationFrame(() => { waiting = false; if (root.isConnected) draw(asked); });
    waiting = true;
  };
  const tapped = (event) => {  // on a telephone the maps lie below the picture
    const box = root.getBoundingClientRect();
    if (event.defaultPrevented || !matchMedia(NARROW).matches || !box.height) return;
    event.preventDefault();  // the first maps of the page are enough
    if (box.top + Math.min(box.height, 300) > innerHeight || box.top < 0) root.scrollIntoView({block: 'start'});
  };
  if (root.horinsightDeaf) root.horinsightDeaf();
  window.addEventListener(QUERY, ask);
  window.addEventListener(TAPPED, tapped);
  root.horinsightDeaf = () => {
    window.removeEventListener(QUERY, ask);
    window.removeEventListener(TAPPED, tapped);
  };
  return root.horinsightDeaf;
}
