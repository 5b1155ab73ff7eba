# @scope: recv
# Normalizes the requests of all clients that want the same content, so that the
# cache sees one key instead of thousands. Parts that vary by accident (the
# order of the query, cookies, encodings) are dropped. An invalid value is
# replaced by one fixed word, so that all invalid values together cost the
# origin one request.

declare local var.headwater_page STRING;
declare local var.headwater_given STRING;
declare local var.headwater_value STRING;
declare local var.headwater_query STRING;
declare local var.headwater_lanes INTEGER;
declare local var.headwater_lane INTEGER;
declare local var.headwater_client STRING;
declare local var.headwater_pages STRING;

# The other files act on this header. Every hop derives it from method and path,
# so it is not sent to a shield, and a client's own copy is removed.
unset req.http.Headwater-Path;
set var.headwater_page = "";
# Only a restart in deliver.vcl may request a synthetic response.
if (req.restarts == 0) {
  unset req.http.Headwater-Shed;
  unset req.http.Headwater-Access;
}
# A client's copy of the secret that an edge sends to its shield and to the
# origin is removed too.
if (fastly.ff.visits_this_service == 0) {
  unset req.http.Headwater-Edge-Auth;
}

if (req.method == "GET" || req.method == "HEAD") {
  # Some clients encode the comma of a list and others do not; both must share
  # one key. \x25 is the percent sign, which Fastly would read as an escape
  # sequence.
  if (fastly.ff.visits_this_service == 0 && req.restarts == 0
      && req.url.path ~ "(?i)^/channels/[^/]*\x252C") {
    set req.url = regsuball(req.url.path, "(?i)\x252C", ",") regsub(req.url, "^[^?]*", "");
  }

  if (req.url.path ~ "^/channels/[A-Za-z0-9][A-Za-z0-9._~-]*(,[A-Za-z0-9][A-Za-z0-9._~-]*){0,7}$") {
    set req.http.Headwater-Path = "stream";
  } elseif (req.url.path ~ "^/channels/[A-Za-z0-9][A-Za-z0-9._~-]*/(history|state)$") {
    set req.http.Headwater-Path = "history";
    set var.headwater_page = re.group.1;
  }

  # The origin compares the page's Origin with the host that the browser
  # connected to, but Fastly replaces that host by the backend's name.
  if (req.method == "GET" && req.url.path == "/ws") {
    set req.http.X-Forwarded-Host = req.http.Host;
    # This needs the WebSockets product on the service, and it does not work
    # through a shield.
    if (req.http.Upgrade ~ "(?i)^websocket$") {
      # Fastly's reference has this statement; falco 1.13 does not know it.
      // falco-ignore-next-line
      return(upgrade);
    }
  }
}

if (req.http.Headwater-Path) {
  # Sets Headwater-Access to "edge <path>" if the edge grants access, to
  # "origin" if the origin must decide, to nothing for a public channel, or to
  # the reason for a refusal. The subroutine is in private.vcl, which is not
  # visible when this file is linted alone.
  // falco-ignore-next-line
  call headwater_private_recv;
  if (req.http.Headwater-Access == "unauthorized") {
    error 691 "Headwater unauthorized";
  } elseif (req.http.Headwater-Access == "forbidden") {
    error 692 "Headwater forbidden";
  } elseif (req.http.Headwater-Access == "expired") {
    error 693 "Headwater expired";
  }
  # vcl_deliver cannot write a body, so it restarts the request to have one made
  # here.
  if (req.http.Headwater-Shed) {
    error 690 "Headwater shed";
  }
} else {
  unset req.http.Headwater-Access;
}

# A shield receives a request that the edge has already normalized. Normalizing
# it again would be wrong for lanes, because there the client's address is the
# edge's.
if (req.http.Headwater-Path && fastly.ff.visits_this_service == 0 && req.restarts == 0) {
  if (req.http.Headwater-Access != "origin") {
    unset req.http.Cookie;
  }
  unset req.http.Range;
  unset req.http.If-Range;
  unset req.http.If-None-Match;
  unset req.http.If-Modified-Since;
  unset req.http.Accept-Encoding;
  # Every EventSource sends no-cache, but a live stream is always fresh.
  unset req.http.Cache-Control;
  unset req.http.Pragma;

  # With --cors-origin, the origin's responses name the page's origin and have
  # `Vary: Origin`, so that each invented Origin would be a request of its own.
  # A page that is not in the list cannot read the response in any case, and
  # gets the response for a request without an Origin.
  set var.headwater_pages = regsuball(" " table.lookup(headwater, "cors_origins", "") " ", "[ ,]+", " ");
  if (req.http.Origin && var.headwater_pages != " ") {
    set var.headwater_value = " " req.http.Origin " ";
    set var.headwater_pages = std.strstr(var.headwater_pages, var.headwater_value);
    if (req.http.Origin ~ "[ ,]" || var.headwater_pages !~ "^ ") {
      unset req.http.Origin;
    }
  }

  # With "&" added at both ends, every parameter has the form "&name=value&".
  # The first occurrence of a name counts, and an empty value counts as absent.
  set var.headwater_given = "&" req.url.qs "&";
  set var.headwater_query = "";

  # The start of a stream: the first of Last-Event-ID, lastEventId, after, since
  # and last that has a value decides, as at the origin, and the others are
  # dropped. An EventSource keeps the query of its URL at every reconnect, so
  # otherwise clients with the same cursor would have different keys by their
  # first query.
  if (req.http.Headwater-Path == "stream") {
    set req.http.Accept = "text/event-stream";
    # Two header lines are joined into one value, which is then no valid cursor.
    # Otherwise one line could decide the key and the other the response.
    std.collect(req.http.Last-Event-ID);
    if (req.http.Last-Event-ID == "") {
      unset req.http.Last-Event-ID;
    }
    # A cursor in the query is moved into the header, which hash.vcl adds to the
    # key.
    if (!req.http.Last-Event-ID && var.headwater_given ~ "&lastEventId(=[^&]*|)&") {
      set req.http.Last-Event-ID = regsub(re.group.1, "^=", "");
      if (req.http.Last-Event-ID == "") {
        unset req.http.Last-Event-ID;
      }
    }
    if (!req.http.Last-Event-ID && var.headwater_given ~ "&after(=[^&]*|)&") {
      set req.http.Last-Event-ID = regsub(re.group.1, "^=", "");
      if (req.http.Last-Event-ID == "") {
        unset req.http.Last-Event-ID;
      }
    }
    # The origin answers every text that is no valid cursor with the same `gap`
    # event.
    if (req.http.Last-Event-ID && req.http.Last-Event-ID !~ "^[0-9._-]{1,384}$") {
      set req.http.Last-Event-ID = "unknown";
    }
  } else {
    unset req.http.Last-Event-ID;
  }

  if (var.headwater_page == "history") {
    if (var.headwater_given ~ "&after(=[^&]*|)&") {
      set var.headwater_value = re.group.1;
      if (var.headwater_value ~ "^=[0-9._-]{1,384}$") {
        set var.headwater_query = var.headwater_query "&after" var.headwater_value;
      } elseif (var.headwater_value !~ "^=?$") {
        set var.headwater_query = var.headwater_query "&after=malformed";
      }
    }
    if (var.headwater_given ~ "&before(=[^&]*|)&") {
      set var.headwater_value = re.group.1;
      if (var.headwater_value ~ "^=[0-9._-]{1,384}$") {
        set var.headwater_query = var.headwater_query "&before" var.headwater_value;
      } elseif (var.headwater_value !~ "^=?$") {
        set var.headwater_query = var.headwater_query "&before=malformed";
      }
    }
  }

  if (var.headwater_page != "state" && !req.http.Last-Event-ID) {
    if (var.headwater_given ~ "&since(=[^&]*|)&") {
      set var.headwater_value = re.group.1;
      if (var.headwater_value ~ "^=[0-9A-Za-z:.\x25+-]{1,64}$") {
        set var.headwater_query = var.headwater_query "&since" var.headwater_value;
      } elseif (var.headwater_value !~ "^=?$") {
        set var.headwater_query = var.headwater_query "&since=malformed";
      }
    }
    if ((var.headwater_page == "history" || var.headwater_query == "")
        && var.headwater_given ~ "&last(=[^&]*|)&") {
      set var.headwater_value = re.group.1;
      if (var.headwater_value ~ "^=[0-9]{1,4}$") {
        set var.headwater_query = var.headwater_query "&last" var.headwater_value;
      } elseif (var.headwater_value !~ "^=?$") {
        set var.headwater_query = var.headwater_query "&last=malformed";
      }
    }
  }

  if (req.http.Headwater-Path == "stream") {
    if (var.headwater_given ~ "&lane(=[^&]*|)&") {
      set var.headwater_value = re.group.1;
      if (var.headwater_value ~ "^=[0-9]{1,2}$") {
        set var.headwater_query = var.headwater_query "&lane" var.headwater_value;
      } elseif (var.headwater_value !~ "^=?$") {
        set var.headwater_query = var.headwater_query "&lane=malformed";
      }
    }

    # The lane depends on the client's address, so that a client keeps its lane
    # from segment to segment; a new lane at every reconnect would end at a
    # different boundary each time. When this file is linted alone, the table of
    # init.vcl is not visible.
    // falco-ignore-next-line
    set var.headwater_value = table.lookup(headwater, "lanes", "1");
    # A setting that is no number means no lanes.
    if (var.headwater_value ~ "^[0-9]{1,9}$") {
      set var.headwater_lanes = std.atoi(var.headwater_value);
    }
    if (var.headwater_lanes > 64) {
      set var.headwater_lanes = 64;
    }
    if (var.headwater_lanes > 1 && var.headwater_query !~ "&lane=") {
      set var.headwater_client = client.ip;
      set var.headwater_lane = std.strtol(substr(digest.hash_sha256(var.headwater_client), 0, 7), 16);
      set var.headwater_lane %= var.headwater_lanes;
      set var.headwater_query = var.headwater_query "&lane=" std.itoa(var.headwater_lane);
    }

    if (var.headwater_given ~ "&mode(=[^&]*|)&") {
      set var.headwater_value = re.group.1;
      # mode=stream is the default, which is left out. Any other word goes to
      # the origin, which may know it or refuse it.
      if (var.headwater_value ~ "^=[a-z]{1,16}$") {
        if (var.headwater_value != "=stream") {
          set var.headwater_query = var.headwater_query "&mode" var.headwater_value;
        }
      } elseif (var.headwater_value !~ "^=?$") {
        set var.headwater_query = var.headwater_query "&mode=malformed";
      }
    }
    if (var.headwater_given ~ "&format(=[^&]*|)&") {
      set var.headwater_value = re.group.1;
      if (var.headwater_value == "=json") {
        set var.headwater_query = var.headwater_query "&format=json";
      } elseif (var.headwater_value !~ "^(=|=raw)?$") {
        set var.headwater_query = var.headwater_query "&format=malformed";
      }
    }
  } elseif (var.headwater_page == "history") {
    if (var.headwater_given ~ "&limit(=[^&]*|)&") {
      set var.headwater_value = re.group.1;
      if (var.headwater_value ~ "^=[0-9]{1,4}$") {
        set var.headwater_query = var.headwater_query "&limit" var.headwater_value;
      } elseif (var.headwater_value !~ "^=?$") {
        set var.headwater_query = var.headwater_query "&limit=malformed";
      }
    }
  }

  # A private channel may be requested from the origin with the token in the
  # query.
  if (req.http.Headwater-Access == "origin" && var.headwater_given ~ "&access_token(=[^&]*)&") {
    set var.headwater_query = var.headwater_query "&access_token" re.group.1;
  }

  set req.url = req.url.path regsub(var.headwater_query, "^&", "?");
}

# A response to a request with a credential for the origin must not be shared.
# vcl_miss does the pass: a return here would leave vcl_recv before Fastly has
# chosen the backend, and so bypass the shield. Until then, these two settings
# keep the request from hitting an object or waiting for one.
if (req.http.Headwater-Path && (req.http.Authorization || req.http.Headwater-Access == "origin")) {
  set req.hash_always_miss = true;
  set req.hash_ignore_busy = true;
}

# POST, DELETE and OPTIONS need nothing here: the code that follows every recv
# snippet passes all methods except GET, HEAD and a purge.
