// Maps over a light grey picture, one per block: values on hover or with the arrow keys, a click or Enter moves the query.
// While a pointer is on a picture the maps are those of the position below it, from the tables that `follow.js` holds.
const PANEL = `<figcaption><b></b><span class="note"></span></figcaption>
  <div class="map" tabindex="0" role="application"><img alt=""><canvas></canvas><svg preserveAspectRatio="none"></svg></div>
  <div class="detail"></div>`;

const signed = (value) => value === null ? '0' : (value < 0 ? '\u2212' : '+') + Math.abs(value).toExponential(2);

function paint(canvas, panel, data) {
  canvas.width = panel.cols;
  canvas.height = panel.rows;
  const context = canvas.getContext('2d');
  const pixels = context.createImageData(panel.cols, panel.rows);
  const colours = data.colours[panel.signed ? 'signed' : 'positive'];
  panel.values.forEach((value, index) => {
    if (value === null) return;  // beyond the kernel or the window: the picture stays uncovered
    const share = Math.max(0, Math.min(1, (value - panel.low) / (panel.high - panel.low)));
    const from = Math.round(share * 255) * 3;
    pixels.data.set([...colours.slice(from, from + 3), Math.round(255 * data.opacity)], index * 4);
  });
  context.putImageData(pixels, 0, 0);
  canvas.style.imageRendering = data.smooth ? 'auto' : 'pixelated';
}

const NEGLIGIBLE = 1e-20;  // of the largest: as in figures/mixing_maps.py

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

// Limits of some maps and their label: symmetric where there are negative values, as in `map_limits`.
function limitsOf(maps) {
  let low = Infinity, high = -Infinity;
  for (const values of maps) for (const value of values) {
    if (value === null) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return {low: -1, high: 1, note: 'all 0'};
  if (low < 0 || low === high) {
    const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
    return {low: -most, high: most, note: `max |h| ${short(most)}`};
  }
  return {low, high, note: `${short(low)} to ${short(high)}`};
}

const short = (value) => value.toExponential(1).replace(/e([+-])(\d)$/, (_, sign, digit) => `e${sign}0${digit}`);

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
  const limited = (panel, {low, high, note}) => ({...panel, low, high, note, signed: low < 0});
  const together = data.oneScale && limitsOf(panels.map((panel) => panel.values));
  return panels.map((panel, index) =>
    panel === data.panels[index] && !together ? panel : limited(panel, together || limitsOf([panel.values])));
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

export default function ({data, parentElement, setTriggerValue}) {
  const root = parentElement.querySelector('.gallery');
  const grid = root.querySelector('.maps'), read = root.querySelector('.read');
  let alive = true, hovered = null;  // [row, col] as shares of the map's height and width
  let panels = data.panels, asked = null, waiting = false;
  delete root.dataset.ready;
  grid.style.setProperty('--columns', data.columns);
  while (grid.children.length > data.panels.length) grid.lastChild.remove();
  while (grid.children.length < data.panels.length) {
    const figure = document.createElement('figure');
    figure.innerHTML = PANEL;
    grid.append(figure);
  }
  const cellOf = (panel, place) =>
    [clamp(Math.floor(place[0] * panel.rows), panel.rows), clamp(Math.floor(place[1] * panel.cols), panel.cols)];

  const mark = () => panels.forEach((panel, index) => {
    const svg = grid.children[index].querySelector('svg');
    svg.setAttribute('viewBox', `0 0 ${panel.cols} ${panel.rows}`);
    svg.replaceChildren();
    if (hovered) outline(svg, cellOf(panel, hovered), '#ffd400', 2);
    outline(svg, panel.query, '#000', 5);
    outline(svg, panel.query, '#fff', 2);
  });
  const tell = (first) => {
    if (!hovered) {
      read.textContent = data.hint;
      return;
    }
    const [row, col] = cellOf(first, hovered);
    const values = panels.map((panel) => {
      const [r, c] = cellOf(panel, hovered);
      const elsewhere = panel.rows === first.rows && panel.cols === first.cols ? '' : ` (${r}, ${c})`;
      return `${panel.title}${elsewhere} ${signed(panel.values[r * panel.cols + c])}`;
    });
    read.textContent = `j = row ${row}, column ${col}:  ${values.join(' · ')}`;
  };

  // one painting a frame, however fast the pointer moves
  const follow = () => {
    waiting = false;
    if (!alive || !root.isConnected) return;
    panels = (asked && followed(data, asked)) || data.panels;
    panels.forEach((panel, index) => {
      const figure = grid.children[index];
      paint(figure.querySelector('canvas'), panel, data);
      figure.querySelector('.note').textContent = panel.note;
    });
    mark();
    root.dataset.followed = panels === data.panels ? '' : asked.cell.join(':');
    if (asked) root.dataset.milliseconds = (performance.now() - asked.at).toFixed(2);  // from the pointer's event
  };
  const ask = (event) => {
    asked = event.detail;
    if (!waiting) requestAnimationFrame(follow);
    waiting = true;
  };
  window.removeEventListener(QUERY, root.horinsightAsk);
  root.horinsightAsk = ask;
  window.addEventListener(QUERY, ask);

  data.panels.forEach((panel, index) => {
    const figure = grid.children[index], map = figure.querySelector('.map'), image = figure.querySelector('img');
    figure.querySelector('b').textContent = panel.title;
    figure.querySelector('b').title = panel.name;
    figure.querySelector('.note').textContent = panel.note;
    figure.querySelector('.note').title = panel.signed ? 'largest |h| of the map' : 'least and largest h of the map';
    figure.querySelector('.detail').textContent = panel.detail;
    figure.querySelector('.detail').title = data.detailHelp;
    map.setAttribute('aria-label', `${panel.title} (${panel.name}): weights from row ${panel.query[0]}, column ` +
      `${panel.query[1]}, limits ${panel.note}. ${panel.detail}. Arrow keys read values, Enter moves the query.`);
    if (image.dataset.id !== data.id) {
      image.src = data.src;
      image.dataset.id = data.id;
    }
    image.classList.toggle('grey', data.grey);
    paint(figure.querySelector('canvas'), panel, data);
    const place = (event) => {
      const box = map.getBoundingClientRect();
      return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
    };
    const show = (where) => { hovered = where; mark(); tell(panels[index]); };
    const choose = (where) => {
      const [row, col] = cellOf(panel, where);
      setTriggerValue('cell', {panel: index, row, col});
    };
    map.onpointermove = (event) => show(place(event));
    map.onpointerleave = () => show(null);
    map.onblur = () => show(null);
    map.onclick = (event) => choose(place(event));
    map.onkeydown = (event) => {
      const step = ARROWS[event.key];
      if (event.key === 'Enter' && hovered) choose(hovered);
      if (!step) return;
      event.preventDefault();
      const [row, col] = hovered ? cellOf(panel, hovered) : panels[index].query;
      show([(clamp(row + step[0], panel.rows) + 0.5) / panel.rows, (clamp(col + step[1], panel.cols) + 0.5) / panel.cols]);
    };
  });

  for (const kind of ['signed', 'positive']) {
    const scale = root.querySelector(`.scale.${kind}`);
    scale.hidden = !data.panels.some((panel) => panel.signed === (kind === 'signed'));
    bar(scale.querySelector('canvas'), data.colours[kind], data.opacity);
    scale.querySelector('.low').textContent = data.ends[kind][0];
    scale.querySelector('.high').textContent = data.ends[kind][1];
  }
  mark();
  tell(null);
  const images = [...grid.querySelectorAll('img')];
  Promise.all(images.map((image) => image.decode().catch(() => null))).then(() => {
    if (alive) root.dataset.ready = data.stamp;
  });
  return () => {
    alive = false;
    window.removeEventListener(QUERY, ask);
  };
}
