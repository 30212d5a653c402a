import timm  # noqa: F401 - first: what its import sets off (see `horinsight`) must find no file of ours half imported
