"""The viewer as a web application, with its security headers: what `horinsight viewer` serves.

Nothing is imported here that computes or registers: there is no server yet.
"""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from horinsight.viewer.service.security_headers import SecurityHeaders
from horinsight.viewer.service.unforeseen import unforeseen

app = st.App(Path(__file__).parent / "app.py", middleware=[Middleware(SecurityHeaders)], on_script_error=unforeseen)
