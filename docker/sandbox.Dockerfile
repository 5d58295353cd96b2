# What the code interpreter's containers are made of; `adlatus sandbox prepare` builds it, with BuildKit or without.
# Any base will do that has apt and, as python3, a Python of 3.11 or later that can make virtual environments.
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE}

COPY sandbox/fonts.txt /opt/adlatus/
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive xargs -a /opt/adlatus/fonts.txt apt-get install -qq -y --no-install-recommends \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /usr/share/doc/*

# In one layer, so that what is stripped takes no space.
COPY sandbox/requirements.txt sandbox/finish.py /opt/adlatus/
RUN python3 -m venv /opt/py \
    && /opt/py/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --only-binary=:all: \
        --requirement /opt/adlatus/requirements.txt \
    && /opt/py/bin/python -I /opt/adlatus/finish.py

RUN groupadd --gid 10001 sandbox \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /home/sandbox --shell /usr/sbin/nologin sandbox \
    && install -d -o 10001 -g 10001 -m 0700 /home/sandbox /mnt/data \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +

# Last, so that another supervisor is a matter of a second.
COPY sandbox/ /opt/adlatus/

ENV HOME=/home/sandbox \
    LANG=C.UTF-8 \
    PATH=/opt/py/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /mnt/data
CMD ["/opt/py/bin/python", "-I", "/opt/adlatus/supervisor.py"]
