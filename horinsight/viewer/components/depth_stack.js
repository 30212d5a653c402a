// Small maps of all depths beside an enlarged one; a slider goes through them without the server, and the maps follow the
// pointer from the tables that `follow.js` holds.
const ofClick = (panel) => ({...panel, note: `${panel.note}, of the click`});  // too large to follow a pointer
const MANY = 16;  // maps from which on the small ones are smaller still
const REST = 500;  // ms without a move until the place of the slider is sent
export default function ({data, parentElement, setTriggerValue}) {
  const root = parentElement.querySelector('.stack');
  const large = root.querySelector('.large'), map = large.querySelector('.map'), image = map.querySelector('img');
  const thumbs = root.querySelector('.thumbs'), read = root.querySelector('.read'), slider = root.querySelector('input');
  let alive = true, hovered = null, panels = data.panels;
  delete root.dataset.ready;

  // what the server says counts where it is news, and not the echo of a place that the slider has left since
  const kept = root.horinsightDepth || (root.horinsightDepth = {told: null, at: 0, sent: null, timer: null});
  if (kept.sent === data.at) kept.sent = null;
  else if (data.at !== kept.told && kept.sent === null && kept.timer === null) kept.at = data.at;
  kept.told = data.at;
  kept.at = clamp(kept.at, panels.length);
  kept.send = (at) => setTriggerValue('depth', {at});

  while (thumbs.children.length > panels.length) thumbs.lastChild.remove();
  while (thumbs.children.length < panels.length) {
    const button = document.createElement('button');
    button.type = 'button';
    button.innerHTML = '<span class="title"></span><span class="picture"><canvas></canvas><span class="empty"></span></span>';
    thumbs.append(button);
  }

  thumbs.style.setProperty('--thumb', panels.length > MANY ? '44px' : '60px');

  const shown = () => panels[kept.at];
  const tell = () => {
    const panel = shown();
    if (!hovered) {
      read.textContent = data.words.hint;
      return;
    }
    const [row, col] = cellOf(panel, hovered);
    read.textContent = `j = row ${row}, column ${col}:  ${panel.title} ${signed(panel.values[row * panel.cols + col])}`;
  };
  const enlarge = () => {
    const panel = shown();
    paint(map.querySelector('canvas'), panel, data);
    large.querySelector('b').textContent = panel.title;
    large.querySelector('.note').textContent = panel.note;
    root.querySelector('.said').textContent = panel.said;
    map.setAttribute('aria-label', `${panel.title}: from row ${panel.query[0]}, column ${panel.query[1]}, ` +
      `${panel.note}. ${panel.said} Arrow keys read values, Enter moves the query.`);
    slider.value = kept.at;
    slider.setAttribute('aria-valuetext', panel.title);
    [...thumbs.children].forEach((button, index) => button.setAttribute('aria-pressed', index === kept.at));
    legends(root, panel.empty ? [] : [panel], data, true);
    markOn(map.querySelector('svg'), panel, hovered);
    root.dataset.depth = kept.at;
    tell();
  };
  const draw = () => {
    panels.forEach((panel, index) => {
      const button = thumbs.children[index];
      paint(button.querySelector('canvas'), panel, data);
      button.title = panel.note;
    });
    enlarge();
  };
  const move = (at) => {
    kept.at = clamp(at, panels.length);
    enlarge();
    clearTimeout(kept.timer);
    kept.timer = setTimeout(() => {
      kept.timer = null;
      if (kept.at === kept.told || !root.isConnected) return;
      kept.sent = kept.at;
      kept.send(kept.at);
    }, REST);
  };
  const follow = (asked) => {
    if (!alive) return;
    const found = asked && followed(data, asked);
    panels = found ? found.map((panel, index) => panel === data.panels[index] ? ofClick(panel) : panel) : data.panels;
    draw();
    root.dataset.followed = found ? asked.cell.join(':') : '';
    if (asked) root.dataset.milliseconds = (performance.now() - asked.at).toFixed(2);
  };
  const deaf = listening(root, follow);

  data.panels.forEach((panel, index) => {
    const button = thumbs.children[index];
    button.querySelector('.title').textContent = panel.title.replace(/^block /, '');
    button.querySelector('.empty').textContent = panel.empty || '';
    if (panel.empty) button.removeAttribute('aria-label');  // its words say all
    else button.setAttribute('aria-label', `Enlarge ${panel.title}`);
    button.onclick = () => move(index);
    button.onkeydown = (event) => {
      const step = ARROWS[event.key];
      if (!step) return;
      event.preventDefault();
      move(kept.at + step[0] + step[1]);
      thumbs.children[kept.at].focus();
    };
  });
  thumbs.setAttribute('aria-label', data.words.name);
  slider.max = panels.length - 1;
  slider.setAttribute('aria-label', data.words.name);
  slider.oninput = () => move(Number(slider.value));
  root.querySelector('.first').textContent = data.words.first;
  root.querySelector('.last').textContent = data.words.last;

  const show = (where) => { hovered = where; markOn(map.querySelector('svg'), shown(), hovered); tell(); };
  const choose = (where) => {
    const [row, col] = cellOf(shown(), where);
    setTriggerValue('cell', {panel: kept.at, row, col});
  };
  reading(map, shown, {hovered: () => hovered, show, choose});

  if (image.dataset.id !== data.id) {
    image.src = data.src;
    image.dataset.id = data.id;
  }
  image.classList.toggle('grey', data.grey);
  for (const kind of ['signed', 'positive']) {
    bar(root.querySelector(`.scale.${kind} canvas`), data.colours[kind], data.opacity);
  }
  draw();
  image.decode().catch(() => null).then(() => { if (alive) root.dataset.ready = data.stamp; });
  return () => {
    alive = false;
    deaf();
  };
}
