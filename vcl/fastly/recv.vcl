# @scope: recv
# Gives all clients of one crowd the same request, so that the cache sees one
# key instead of thousands. What a client can vary without meaning to (query
# order, cookies, encodings) is dropped; what it must not vary is replaced by
# one word, so that nonsense costs the origin one request and not one each.

declare local var.headwater_page STRING;
declare local var.headwater_given STRING;
declare local var.headwater_value STRING;
declare local var.headwater_query STRING;
declare local var.headwater_lanes INTEGER;
declare local var.headwater_lane INTEGER;
declare local var.headwater_client STRING;
declare local var.headwater_pages STRING;

# The other files act on this mark. Every hop derives it from method and path,
# so it need not travel to a shield, and a client's own copy never counts.
unset req.http.Headwater-Path;
set var.headwater_page = "";
# Only this edge itself asks for a synthetic answer, by a restart in deliver.vcl.
if (req.restarts == 0) {
  unset req.http.Headwater-Shed;
  unset req.http.Headwater-Access;
}
# Nor does what an edge tells its shield and the origin of who was let in.
if (fastly.ff.visits_this_service == 0) {
  unset req.http.Headwater-Edge-Auth;
}

if (req.method == "GET" || req.method == "HEAD") {
  # Clients escape the comma of a list or do not; the crowd must not split on it.
  # \x25 is the percent sign, which Fastly would take for an escape of its own.
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

  # The origin compares the page of a WebSocket with the host that its browser asked
  # for, and the backend's own name takes the place of that host on the way.
  if (req.method == "GET" && req.url.path == "/ws") {
    set req.http.X-Forwarded-Host = req.http.Host;
    # Needs the WebSockets product on the service; it does not work through a shield.
    if (req.http.Upgrade ~ "(?i)^websocket$") {
      # Fastly's reference has it, falco 1.13 does not.
      // falco-ignore-next-line
      return(upgrade);
    }
  }
}

if (req.http.Headwater-Path) {
  # Says in Headwater-Access "edge <path>" for let in here, "origin" for not ours
  # to judge, nothing for a public channel, or why not. In private.vcl, which is
  # not seen where this file is linted alone.
  // falco-ignore-next-line
  call headwater_private_recv;
  if (req.http.Headwater-Access == "unauthorized") {
    error 691 "Headwater unauthorized";
  } elseif (req.http.Headwater-Access == "forbidden") {
    error 692 "Headwater forbidden";
  } elseif (req.http.Headwater-Access == "expired") {
    error 693 "Headwater expired";
  }
  # vcl_deliver cannot write a body, so it sends the request here for one.
  if (req.http.Headwater-Shed) {
    error 690 "Headwater shed";
  }
} else {
  unset req.http.Headwater-Access;
}

# A shield gets a request that the edge has already made canonical. Doing it
# again there would be wrong for lanes: its client is the edge, not the browser.
if (req.http.Headwater-Path && fastly.ff.visits_this_service == 0 && req.restarts == 0) {
  if (req.http.Headwater-Access != "origin") {
    unset req.http.Cookie;
  }
  unset req.http.Range;
  unset req.http.If-Range;
  unset req.http.If-None-Match;
  unset req.http.If-Modified-Since;
  unset req.http.Accept-Encoding;
  # Every EventSource sends no-cache; it asks for freshness that a live stream has.
  unset req.http.Cache-Control;
  unset req.http.Pragma;

  # With --cors-origin the origin's answers name the page that asks and have `Vary: Origin`, so that each
  # invented Origin would be a request of its own. A page that is not in the list cannot read
  # the answer in any case, and gets the one for a request without an Origin.
  set var.headwater_pages = regsuball(" " table.lookup(headwater, "cors_origins", "") " ", "[ ,]+", " ");
  if (req.http.Origin && var.headwater_pages != " ") {
    set var.headwater_value = " " req.http.Origin " ";
    set var.headwater_pages = std.strstr(var.headwater_pages, var.headwater_value);
    if (req.http.Origin ~ "[ ,]" || var.headwater_pages !~ "^ ") {
      unset req.http.Origin;
    }
  }

  # Written with both ends closed, a parameter is always "&name=value&". The first
  # occurrence of a name counts, and an empty value counts as absent.
  set var.headwater_given = "&" req.url.qs "&";
  set var.headwater_query = "";

  # Where a stream starts: the first of Last-Event-ID, lastEventId, after, since and
  # last that has a value decides, as at the origin, and the others are dropped. An
  # EventSource keeps the query of its URL at every reconnect, so the query would
  # otherwise split the clients by where each of them once began.
  if (req.http.Headwater-Path == "stream") {
    set req.http.Accept = "text/event-stream";
    # Two header lines become one value, which then is no cursor, instead of one
    # line deciding the key and the other the answer.
    std.collect(req.http.Last-Event-ID);
    if (req.http.Last-Event-ID == "") {
      unset req.http.Last-Event-ID;
    }
    # A cursor of the query moves into the header, which hash.vcl has in the key.
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
    # The origin answers every text that is no cursor with the same `gap` event.
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

    # By address, so that one client keeps its lane from segment to segment; a
    # new lane at every reconnect would wait out a different boundary each time.
    # Linted alone, this file cannot see the table of init.vcl.
    // falco-ignore-next-line
    set var.headwater_value = table.lookup(headwater, "lanes", "1");
    # A setting that is no number is no lanes.
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
      # mode=stream is the default, and a default is not said. A word the origin
      # may know is left for it to refuse.
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

  # The origin may be asked for a private channel with the token in the query.
  if (req.http.Headwater-Access == "origin" && var.headwater_given ~ "&access_token(=[^&]*)&") {
    set var.headwater_query = var.headwater_query "&access_token" re.group.1;
  }

  set req.url = req.url.path regsub(var.headwater_query, "^&", "?");
}

# What carries a credential to the origin may not be shared.
# vcl_miss does the pass: a return here would leave vcl_recv before Fastly has
# chosen the backend, and so miss the shield. These two keep the request from
# finding an object or waiting for one on its way there.
if (req.http.Headwater-Path && (req.http.Authorization || req.http.Headwater-Access == "origin")) {
  set req.hash_always_miss = true;
  set req.hash_ignore_busy = true;
}

# POST, DELETE and OPTIONS need nothing here: the code that follows every recv
# snippet passes all that is not GET, HEAD or a purge.
