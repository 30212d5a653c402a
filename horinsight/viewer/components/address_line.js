// Puts into the address what a page shows that was turned to: its entry in the browser's history is made already.
export default function ({data}) {
  if (window.horinsightTurned === data.turned) return;  // once for each turn, however often this is drawn
  window.horinsightTurned = data.turned;
  const address = location.pathname + (data.query ? `?${data.query}` : '') + location.hash;
  history.replaceState(history.state, '', address);
}
