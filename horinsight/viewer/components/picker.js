// A picture on which a cell is chosen: by a click, or with the arrow keys. Maps follow the pointer; a path that is drawn
// with the button held is played again and again.
const PLAYED = 140;  // ms a cell
export default function ({data, parentElement, setTriggerValue}) {
  const root = parentElement.querySelector('.picker');
  const image = root.querySelector('img'), svg = root.querySelector('svg'), said = root.querySelector('.said');
  const {rows, cols} = data, button = root.querySelector('.play');
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
  let current = [data.row, data.col], hovered = null, timer = null;
  let path = root.horinsightPath && root.horinsightPath.id === data.id ? root.horinsightPath.cells : [];
  let drawing = false, drawn = false, playing = null, step = 0;

  if (image.dataset.id !== data.id) {
    image.src = data.src;
    image.dataset.id = data.id;
  }
  image.alt = data.alt;
  root.setAttribute('aria-label', data.label);
  svg.setAttribute('viewBox', `0 0 ${cols} ${rows}`);

  const draw = () => {
    svg.replaceChildren();
    if (path.length > 1) {
      const line = document.createElementNS(SVG, 'polyline');
      const points = path.map(([row, col]) => `${col + 0.5},${row + 0.5}`).join(' ');
      const look = {points, fill: 'none', stroke: '#ffd400', 'stroke-width': 2, 'vector-effect': 'non-scaling-stroke'};
      for (const [name, value] of Object.entries(look)) line.setAttribute(name, value);
      svg.append(line);
    }
    if (hovered) outline(svg, hovered, '#fff', 1.5, true);
    outline(svg, current, '#000', 5);
    outline(svg, current, '#fff', 2.5);
    said.textContent = `row ${current[0]}, column ${current[1]}`;
  };
  const cell = (event) => {
    const box = root.getBoundingClientRect();
    return [clamp(Math.floor((event.clientY - box.top) / box.height * rows), rows),
      clamp(Math.floor((event.clientX - box.left) / box.width * cols), cols)];
  };
  const send = () => setTriggerValue('cell', {row: current[0], col: current[1]});
  const look = (where) => {
    if (String(where) === String(hovered)) return;
    hovered = where;
    draw();
    askFrom(where, [rows, cols]);
  };
  const stop = () => {
    clearInterval(root.horinsightTimer);  // also that of a run before
    playing = null;
    button.textContent = '\u25b6 Play the path';
    look(null);
  };
  const play = () => {
    clearInterval(root.horinsightTimer);
    step = 0;
    playing = root.horinsightTimer = setInterval(() => root.isConnected ? look(path[step++ % path.length]) : stop(), PLAYED);
    button.textContent = '\u25a0 Stop';
  };
  const keep = (cells) => {
    path = cells;
    root.horinsightPath = {id: data.id, cells};
    button.hidden = path.length < 2;
  };
  const forget = () => { stop(); keep([]); draw(); };

  root.onpointerdown = (event) => {
    drawn = false;
    if (event.target === button || event.button !== 0 || event.pointerType === 'touch') return;
    drawing = true;
    root.start = cell(event);
  };
  root.onpointermove = (event) => {
    const where = cell(event);
    if (drawing && String(where) !== String(root.start) && !drawn) {
      stop();
      keep([root.start]);
      drawn = true;
    }
    if (drawing && drawn && String(where) !== String(path[path.length - 1])) keep([...path, where]);
    if (!playing) look(where);
  };
  const release = () => {
    if (drawing && drawn && path.length > 1 && !still) play();
    drawing = false;
  };
  root.onpointerup = release;
  root.onpointerleave = () => {
    release();
    if (!playing) look(null);
  };
  root.onclick = (event) => {
    if (event.target === button || drawn) return;
    forget();
    current = cell(event);
    draw();
    send();
    tellTapped();
  };
  button.onclick = () => playing ? stop() : play();
  root.onkeydown = (event) => {
    if (event.key === 'Escape') forget();
    if (event.target === button) return;
    const step = ARROWS[event.key];
    if (!step) return;
    event.preventDefault();
    current = [clamp(current[0] + step[0], rows), clamp(current[1] + step[1], cols)];
    draw();
    askFrom(current, [rows, cols]);
    clearTimeout(timer);
    timer = setTimeout(send, 150);
  };
  button.hidden = path.length < 2;
  stop();
  draw();
  return () => {
    clearTimeout(timer);
    clearInterval(root.horinsightTimer);
  };
}
