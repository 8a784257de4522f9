# Stands for postgres:18-bookworm where no registry is reached: Debian's PostgreSQL, set up from the same variables.
FROM debian-standin
ENV PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin PGDATA=/var/lib/postgresql/18/docker
COPY postgres-entrypoint.sh /usr/local/bin/
RUN install -d -o postgres -m 2775 /run/postgresql /var/lib/postgresql
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
ENTRYPOINT ["sh", "/usr/local/bin/postgres-entrypoint.sh"]
