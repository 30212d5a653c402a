// Tables of all queries of the shown blocks, sent once; galleries draw from them what a pointer asks for.
// A message: its header's length (uint32), the header (JSON, padded to four bytes), then arrays, each from a multiple of four
// bytes on. Values may be halves (float16), as shares of the largest of their query.
let halves = null;
function numberOfHalf() {
  if (halves) return halves;
  halves = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = bits >> 10 & 31, fraction = (bits & 1023) / 1024;
    const size = exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14;
    halves[bits] = bits >> 15 ? -size : size;
  }
  return halves;
}

function numbersOf(shares, scales, width) {
  const number = numberOfHalf(), found = new Float32Array(shares.length);
  for (let a = 0; a < shares.length; a++) found[a] = number[shares[a]] * scales[Math.floor(a / width)];
  return found;
}

export default function ({data, parentElement}) {
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data);
  const whole = bytes.byteOffset % 4 ? bytes.slice() : bytes;  // arrays must begin at a multiple of four
  const length = new DataView(whole.buffer, whole.byteOffset).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(whole.subarray(4, 4 + length)));
  const start = whole.byteOffset + 4 + length;
  const array = (kind, place) => place && new kind(whole.buffer, start + 4 * place[0], place[1]);
  const blocks = {};
  for (const [name, block] of Object.entries(header.blocks)) {
    const values = block.scales
      ? numbersOf(array(Uint16Array, block.values), array(Float32Array, block.scales), block.width)
      : array(Float32Array, block.values);
    const cells = array(block.smallCells ? Int16Array : Int32Array, block.cells);
    blocks[name] = {...block, values, cells, places: array(Int32Array, block.places)};
  }
  window.horinsightTables = {...window.horinsightTables, [header.scope]: {stamp: header.stamp, blocks}};
  parentElement.querySelector('.tables').dataset.ready = header.stamp;
}
