// Tables of all queries of the shown blocks, sent once; galleries draw from them what a pointer asks for.
// A message: its header's length (uint32), the header (JSON, padded to four bytes), then arrays of four bytes each.
export default function ({data, parentElement}) {
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data);
  const whole = bytes.byteOffset % 4 ? bytes.slice() : bytes;  // arrays must begin at a multiple of four
  const length = new DataView(whole.buffer, whole.byteOffset).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(whole.subarray(4, 4 + length)));
  const start = whole.byteOffset + 4 + length;
  const array = (kind, place) => place && new kind(whole.buffer, start + 4 * place[0], place[1]);
  const blocks = {};
  for (const [name, block] of Object.entries(header.blocks)) {
    blocks[name] = {...block, values: array(Float32Array, block.values), cells: array(Int32Array, block.cells),
      places: array(Int32Array, block.places)};
  }
  window.horinsightTables = {...window.horinsightTables, [header.scope]: {stamp: header.stamp, blocks}};
  parentElement.querySelector('.tables').dataset.ready = header.stamp;
}
