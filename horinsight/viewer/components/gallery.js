// Maps over a light grey picture, one per block: values on hover or with the arrow keys, a click or Enter moves the query.
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

  const mark = () => data.panels.forEach((panel, index) => {
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
    const values = data.panels.map((panel) => {
      const [r, c] = cellOf(panel, hovered);
      const elsewhere = panel.rows === first.rows && panel.cols === first.cols ? '' : ` (${r}, ${c})`;
      return `${panel.title}${elsewhere} ${signed(panel.values[r * panel.cols + c])}`;
    });
    read.textContent = `j = row ${row}, column ${col}:  ${values.join(' · ')}`;
  };

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
    const show = (where) => { hovered = where; mark(); tell(panel); };
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
      const [row, col] = hovered ? cellOf(panel, hovered) : panel.query;
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
  return () => { alive = false; };
}
