"""The viewer: `streamlit run apps/viewer.py`, or with weights of your own `... -- --checkpoints FOLDER`."""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

import horinsight.viewer
from horinsight.viewer.service.security_headers import SecurityHeaders
from horinsight.viewer.service.unforeseen import unforeseen

# as `horinsight/viewer/served.py`: Streamlit looks for an `st.App` in the text of the file that it is given
SCRIPT = Path(horinsight.viewer.__file__).parent / "app.py"
app = st.App(SCRIPT, middleware=[Middleware(SecurityHeaders)], on_script_error=unforeseen)

if __name__ == "__main__":  # a run of the script by itself, as in tests
    from horinsight.viewer.app import run

    run()
