"""gramlet studio: a web page over a gramlet server. An ordinary backend that calls `gramlet.AsyncClient`.

serve(StudioOptions(), lambda: gramlet.AsyncClient("localhost:50051"))
"""

from gramlet_studio.app import make_app
from gramlet_studio.options import StudioOptions
from gramlet_studio.serve import serve

__all__ = ["StudioOptions", "make_app", "serve"]
