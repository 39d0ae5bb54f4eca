# In place of python:3.11.13-slim-bookworm: Debian's Python 3.11, and the wheel of torch where pip
# looks first.
FROM ofa-stand-in/debian
COPY wheels /opt/wheels
RUN printf '[global]\nfind-links = /opt/wheels\n' >/etc/pip.conf
ENV PYTHONUNBUFFERED=1
CMD ["python3"]
