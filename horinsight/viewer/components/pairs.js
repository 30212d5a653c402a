// Maps of A and of B and their difference, a column of three for each pair of blocks, or a row of three on a telephone.
const PANEL = `<figcaption><b></b><span class="note"></span></figcaption>
  <div class="map" tabindex="0" role="application"><img alt=""><canvas></canvas><svg preserveAspectRatio="none"></svg></div>`;

// Which share of an old cell of a line each new one holds: as in mixing/map_difference.py.
const overlaps = (old, fresh) => Array.from({length: fresh}, (_, n) => Array.from({length: old}, (_, o) =>
  Math.max(0, Math.min((n + 1) * old, (o + 1) * fresh) - Math.max(n * old, o * fresh)) / fresh));

function resampled(values, rows, cols, newRows, newCols) {
  if (rows === newRows && cols === newCols) return values;
  const tall = overlaps(rows, newRows), wide = overlaps(cols, newCols), found = new Array(newRows * newCols).fill(0);
  for (let r = 0; r < newRows; r++) for (let y = 0; y < rows; y++) if (tall[r][y]) {
    for (let c = 0; c < newCols; c++) for (let x = 0; x < cols; x++) {
      if (wide[c][x]) found[r * newCols + c] += tall[r][y] * wide[c][x] * values[y * cols + x];
    }
  }
  return found;
}

function shares(values) {
  const most = values.reduce((so, value) => Math.max(so, Math.abs(value)), 0) || 1;
  const sum = values.reduce((so, value) => so + Math.abs(value) / most, 0) || 1;
  return values.map((value) => value / most / sum);
}

// B - A of h / sum|h|, on the smaller of both maps; null where neither looks.
function difference(a, b) {
  const rows = Math.min(a.rows, b.rows), cols = Math.min(a.cols, b.cols);
  const on = (panel, values) => resampled(values, panel.rows, panel.cols, rows, cols);
  const [first, second] = [a, b].map((panel) => on(panel, shares(panel.values.map((value) => value || 0))));
  const [seenA, seenB] = [a, b].map((panel) => on(panel, panel.values.map((value) => value ? 1 : 0)));
  const values = second.map((value, j) => seenA[j] + seenB[j] > 0 ? value - first[j] : null);
  const moved = values.reduce((so, value) => so + Math.abs(value || 0), 0) / 2;
  const query = a.rows === rows ? a.query : b.query;
  return {title: 'B \u2212 A', signed: true, values, rows, cols, moved, query, note: `${Math.round(100 * moved)} % differs`};
}

export default function ({data, parentElement, setTriggerValue}) {
  const root = parentElement.querySelector('.pairs');
  const grid = root.querySelector('.grid'), read = root.querySelector('.read');
  const [A, B] = data.sides, number = A.panels.length;
  const look = {...data, colours: {...data.colours, signed: data.differenceColours}};  // of differences
  let alive = true, hovered = null, shown = [];  // of each pair: A, B, difference
  delete root.dataset.ready;
  while (grid.children.length > 3 * number) grid.lastChild.remove();
  while (grid.children.length < 3 * number) {
    const figure = document.createElement('figure');
    figure.innerHTML = PANEL;
    grid.append(figure);
  }

  const together = (a, b) => {
    const limits = data.oneScale && limitsOf([...a, ...b].map((panel) => panel.values));
    const scaled = (panel) => {
      const own = limitsOf([panel.values]), {low, high, uniform} = limits || own;
      return {...panel, low, high, uniform, signed: low < 0, note: own.note};
    };
    const differences = a.map((panel, index) => difference(panel, b[index]));
    const largest = (panels) => Math.max(...panels.flatMap((panel) => panel.values.map((value) => Math.abs(value || 0)))) || 1;
    const most = largest(differences);
    shown = a.map((panel, index) => {
      const high = data.oneScale ? most : largest([differences[index]]);
      return [scaled(panel), scaled(b[index]), {...differences[index], low: -high, high}];
    });
  };
  const mark = () => shown.flat().forEach((panel, index) => markOn(grid.children[index].querySelector('svg'), panel, hovered));
  const tell = (first) => {
    if (!hovered) {
      read.textContent = data.hint;
      return;
    }
    const [row, col] = cellOf(first, hovered);
    const value = (panel) => {
      const [r, c] = cellOf(panel, hovered);
      return signed(panel.values[r * panel.cols + c]);
    };
    read.textContent = `j = row ${row}, column ${col}:  ` + shown.map(([a, b]) => `${a.title} ${value(a)}, ${b.title} ${value(b)}`).join(' · ');
  };
  const draw = () => {
    shown.flat().forEach((panel, index) => {
      const figure = grid.children[index], map = figure.querySelector('.map');
      paint(figure.querySelector('canvas'), panel, index % 3 === 2 ? look : data);
      figure.querySelector('b').textContent = panel.title;
      figure.querySelector('.note').textContent = panel.note;
      map.setAttribute('aria-label', `${panel.title}${index % 3 === 2 ? '' : ` (${panel.name})`}: from row ${panel.query[0]}, ` +
        `column ${panel.query[1]}, ${panel.note}. Arrow keys read values, Enter moves the query.`);
    });
    legends(root, shown.flatMap((pair) => pair.slice(0, 2)), data, data.oneScale);
    const ends = data.oneScale && shown.length ? `${(100 * shown[0][2].high).toPrecision(2)} %` : 'largest';
    root.querySelector('.difference .low').textContent = `\u2212${ends}: A looks more`;
    root.querySelector('.difference .high').textContent = `B looks more: +${ends}`;
    mark();
  };
  const from = (asked) => {
    const sides = [A, B].map((side) => (asked && followed({...data, ...side, oneScale: false}, asked)) || side.panels);
    together(...sides);
    return sides;
  };
  const deaf = listening(root, (asked) => {
    if (!alive) return;
    const sides = from(asked);
    draw();
    root.dataset.followed = [A, B].every((side, index) => side.panels === sides[index]) ? '' : asked.cell.join(':');
    if (asked) root.dataset.milliseconds = (performance.now() - asked.at).toFixed(2);
  });

  from(null);
  shown.flat().forEach((_, index) => {
    const figure = grid.children[index], map = figure.querySelector('.map'), image = figure.querySelector('img');
    const pair = Math.floor(index / 3), kind = index % 3, side = kind === 0 ? A : B;
    if (image.dataset.id !== side.id) {
      image.src = side.src;
      image.dataset.id = side.id;
    }
    image.classList.toggle('grey', data.grey);
    const panel = () => shown[pair][kind];
    const show = (where) => { hovered = where; mark(); tell(panel()); };
    const choose = (where) => {
      const maps = shown[pair], chosen = kind < 2 ? kind : maps[0].rows === maps[2].rows ? 0 : 1;
      const [row, col] = cellOf(maps[chosen], where);
      setTriggerValue('cell', {panel: chosen * number + pair, row, col});
    };
    reading(map, panel, {hovered: () => hovered, show, choose});
  });
  for (const kind of ['signed', 'positive']) {
    bar(root.querySelector(`.scale.${kind} canvas`), data.colours[kind], data.opacity);
  }
  bar(root.querySelector('.scale.difference canvas'), data.differenceColours, data.opacity);
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
