// A picture on which a cell is chosen: by a click, or with the arrow keys.
export default function ({data, parentElement, setTriggerValue}) {
  const root = parentElement.querySelector('.picker');
  const image = root.querySelector('img'), svg = root.querySelector('svg'), said = root.querySelector('.said');
  const {rows, cols} = data;
  let current = [data.row, data.col], hovered = null, timer = null;

  if (image.dataset.id !== data.id) {
    image.src = data.src;
    image.dataset.id = data.id;
  }
  image.alt = data.alt;
  root.setAttribute('aria-label', data.label);
  svg.setAttribute('viewBox', `0 0 ${cols} ${rows}`);

  const draw = () => {
    svg.replaceChildren();
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

  root.onpointermove = (event) => { hovered = cell(event); draw(); };
  root.onpointerleave = () => { hovered = null; draw(); };
  root.onclick = (event) => { current = cell(event); draw(); send(); };
  root.onkeydown = (event) => {
    const step = ARROWS[event.key];
    if (!step) return;
    event.preventDefault();
    current = [clamp(current[0] + step[0], rows), clamp(current[1] + step[1], cols)];
    draw();
    clearTimeout(timer);
    timer = setTimeout(send, 150);
  };
  draw();
  return () => clearTimeout(timer);
}
