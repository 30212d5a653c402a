"""The viewer: `streamlit run apps/viewer.py`, or with weights of your own `... -- --checkpoints FOLDER`."""

from horinsight.viewer.app import run

run()
