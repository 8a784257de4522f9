# Stands for python:3.11-slim-bookworm where no registry is reached: Debian's own Python, and what pip would fetch.
FROM debian-standin
COPY wheels /srv/wheels
COPY pip.conf /etc/pip.conf
COPY our-own.crt /usr/local/share/ca-certificates/
RUN ln -s python3 /usr/bin/python && update-ca-certificates
