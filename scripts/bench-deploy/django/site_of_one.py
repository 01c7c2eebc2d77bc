import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

VERSION = "0"


def answer(request):
    return HttpResponse(f"{VERSION} {os.environ.get('GREETING', '')}")


urlpatterns = [path("", answer)]
settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="of a bench")
application = get_wsgi_application()
