// Shared by the components: cells of a map, outlined in an SVG whose view box counts cells.
const SVG = 'http://www.w3.org/2000/svg';
const ARROWS = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};

const clamp = (value, size) => Math.max(0, Math.min(size - 1, value));

function outline(svg, [row, col], colour, width, dash) {
  const box = document.createElementNS(SVG, 'rect');
  const attributes = {x: col, y: row, width: 1, height: 1, fill: 'none', stroke: colour, 'stroke-width': width,
    'vector-effect': 'non-scaling-stroke', ...(dash ? {'stroke-dasharray': '3 2'} : {})};
  for (const [name, value] of Object.entries(attributes)) box.setAttribute(name, value);
  svg.append(box);
}

// Where a pointer looks from, told to every gallery of the page; null when it has left.
const QUERY = 'horinsight-query';
const askFrom = (cell, size) => window.dispatchEvent(new CustomEvent(QUERY, {detail: cell && {cell, size, at: performance.now()}}));

// A tap or click on a picture, for maps that are out of sight.
const TAPPED = 'horinsight-tapped';
const tellTapped = () => window.dispatchEvent(new CustomEvent(TAPPED, {cancelable: true}));
