"""Dense prediction on backbones of timm: pyramids of maps, detectors and segmenters, as Tables 2 and 3 use them."""
