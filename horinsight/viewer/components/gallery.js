// Maps over a light grey picture, one per block: values on hover or with the arrow keys, a click or Enter moves the query.
const PANEL = `<figcaption><b></b><span class="note"></span></figcaption>
  <div class="map" tabindex="0" role="application"><img alt=""><canvas></canvas><svg preserveAspectRatio="none"></svg></div>
  <div class="detail"></div>`;

export default function ({data, parentElement, setTriggerValue}) {
  const root = parentElement.querySelector('.gallery');
  const grid = root.querySelector('.maps'), read = root.querySelector('.read');
  let alive = true, hovered = null;  // [row, col] as shares of the map's height and width
  let panels = data.panels;
  delete root.dataset.ready;
  grid.style.setProperty('--columns', data.columns);
  while (grid.children.length > data.panels.length) grid.lastChild.remove();
  while (grid.children.length < data.panels.length) {
    const figure = document.createElement('figure');
    figure.innerHTML = PANEL;
    grid.append(figure);
  }
  const mark = () => panels.forEach((panel, index) => markOn(grid.children[index].querySelector('svg'), panel, hovered));
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
  const draw = () => {
    panels.forEach((panel, index) => {
      const figure = grid.children[index];
      paint(figure.querySelector('canvas'), panel, data);
      figure.querySelector('.note').textContent = panel.note;
    });
    legends(root, panels, data, data.oneScale);
    mark();
  };
  const follow = (asked) => {
    if (!alive) return;
    panels = (asked && followed(data, asked)) || data.panels;
    draw();
    root.dataset.followed = panels === data.panels ? '' : asked.cell.join(':');
    if (asked) root.dataset.milliseconds = (performance.now() - asked.at).toFixed(2);  // from the pointer's event
  };
  const deaf = listening(root, follow);

  data.panels.forEach((panel, index) => {
    const figure = grid.children[index], map = figure.querySelector('.map'), image = figure.querySelector('img');
    figure.querySelector('b').textContent = panel.title;
    figure.querySelector('b').title = panel.name;
    figure.querySelector('.note').title = panel.signed ? 'largest |h| of the map' : 'least and largest h of the map';
    const detail = figure.querySelector('.detail');
    detail.replaceChildren(...panel.detail.split('\n').map((words) => {
      const part = document.createElement('span');
      part.textContent = words;
      return part;
    }));
    detail.title = data.detailHelp;
    map.setAttribute('aria-label', `${panel.title} (${panel.name}): weights from row ${panel.query[0]}, column ` +
      `${panel.query[1]}, limits ${panel.note}. ${panel.detail}. Arrow keys read values, Enter moves the query.`);
    if (image.dataset.id !== data.id) {
      image.src = data.src;
      image.dataset.id = data.id;
    }
    image.classList.toggle('grey', data.grey);
    const show = (where) => { hovered = where; mark(); tell(panels[index]); };
    const choose = (where) => {
      const [row, col] = cellOf(panel, where);
      setTriggerValue('cell', {panel: index, row, col});
    };
    reading(map, () => panels[index], {hovered: () => hovered, show, choose});
  });

  for (const kind of ['signed', 'positive']) {
    bar(root.querySelector(`.scale.${kind} canvas`), data.colours[kind], data.opacity);
  }
  draw();
  tell(null);
  const images = [...grid.querySelectorAll('img')];
  Promise.all(images.map((image) => image.decode().catch(() => null))).then(() => {
    if (alive) root.dataset.ready = data.stamp;
  });
  return () => {
    alive = false;
    deaf();
  };
}
