// A place to drop files has a name, and Streamlit marks it as without meaning, which is a contradiction to a screen reader.
export default function () {
  const name = () => document.querySelectorAll('[data-testid=stFileUploaderDropzone][role=presentation]')
    .forEach((zone) => zone.setAttribute('role', 'group'));
  name();
  const watching = new MutationObserver(name);
  watching.observe(document.body, {childList: true, subtree: true});
  return () => watching.disconnect();
}
