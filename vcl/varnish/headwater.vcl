# Headwater behind Varnish 7.1 or newer: one origin request for a segment, however many clients.
#
# Every client that was live at a segment's end reconnects with the same cursor (Last-Event-ID). The
# cursor is part of the cache key, and Varnish streams the response to every client with that key
# while it is still being fetched. It never serves the response after its end. The parts of a
# request that clients may vary are normalized first. A failing origin is never visible as an error,
# because an EventSource stops permanently on any status but 200.
#
# Run it with these parameters (`headwater edge varnish --origin HOST:PORT` prints this file filled
# in):
#
#   varnishd -a :6081 -f $PWD/headwater.vcl -s malloc,1g -s Transient=malloc,1g \
#     -p thread_pools=2 -p thread_pool_min=200 -p thread_pool_max=10000 \
#     -p thread_pool_add_delay=0 -p thread_queue_limit=10000 -p send_timeout=630
#
#   threads        Each streaming client and each fetch needs a worker thread, so the number of
#                  clients is limited to thread_pools x thread_pool_max.
#   thread_queue_limit  At a boundary all clients reconnect within a moment. With the default of 20,
#                  requests that find no free thread are dropped instead of queued.
#   Transient      Stores objects that live for less than `shortlived` (10 s); without a size it is
#                  unbounded.
#   send_timeout   Varnish ends a response that takes longer, so it must exceed --segment.
#
# For TLS and HTTP/2, run nginx in front: nginx/varnish.conf.
vcl 4.1;

import directors;
import std;

backend headwater {
    .host = "127.0.0.1";
    .port = "8080";
    .connect_timeout = 1s;
    # A long poll is answered after --long-poll-timeout (20 s) at the latest.
    .first_byte_timeout = 30s;
    # A quiet stream sends a comment every 5 s (--heartbeat).
    .between_bytes_timeout = 20s;
}

# The addresses that may send PURGE.
acl headwater_operators {
    "127.0.0.1";
    "::1";
}

sub headwater_settings {
    # The origin's --lanes; 1 means no lanes.
    set req.http.Headwater-Lanes = "1";
}

sub vcl_init {
    # The director is used only for its hash function.
    new headwater_hash = directors.shard();
}

sub vcl_recv {
    unset req.http.Headwater-Path;
    unset req.http.Headwater-Cache;
    call headwater_settings;
    if (req.method == "PURGE") {
        call headwater_purge;
    }
    # Only a valid handshake (RFC 6455, section 4.1) is piped, because all later bytes of a piped
    # connection go to the origin unchecked. The origin refuses all other requests to /ws and closes
    # the connection.
    if (req.url ~ "^/ws(\?|$)") {
        if (req.method == "GET" && req.proto == "HTTP/1.1" && req.http.Upgrade ~ "(?i)^websocket$"
            && req.http.Connection ~ "(?i)(^|,)\s*upgrade\s*(,|$)"
            && req.http.Sec-WebSocket-Version == "13"
            && req.http.Sec-WebSocket-Key ~ "^[A-Za-z0-9+/]{22}==$") {
            return (pipe);
        }
        return (pass);
    }
    if (req.method == "GET" || req.method == "HEAD") {
        call headwater_path;
    }
    # The origin alone handles publishes, paths that are no channel, requests with credentials, and
    # names with percent-encoding beyond the comma and tilde that are decoded above.
    if (!req.http.Headwater-Path || req.http.Authorization || req.url ~ "^[^?]*%") {
        return (pass);
    }
    # Requests for channels of --private are passed too, because a cookie or access_token may open
    # them. As shipped, the expression matches no channel.
    if (req.url ~ "^/channels/(?:[^/?]*,)?(?!)") {
        return (pass);
    }
    call headwater_cursor;
    call headwater_query;
    # A shared response must not depend on the headers of one client.
    unset req.http.Cookie;
    # Varnish does not forward a header that the client names in Connection, but it does forward one
    # that is set here. The cursor and the page's origin select the response, so the origin must
    # receive both.
    if (req.http.Last-Event-ID) {
        set req.http.Last-Event-ID = req.http.Last-Event-ID;
    }
    if (req.http.Origin) {
        set req.http.Origin = req.http.Origin;
    }
    # With --cors-origin, the origin's responses name the page's origin (`Vary: Origin`). Give the
    # same origins to `headwater edge varnish`; then the requests of all other pages share one
    # response. As shipped, each invented Origin causes an origin request of its own, which matters
    # only where the origin has the flag.
    if (req.http.Origin !~ ".*") {
        unset req.http.Origin;
    }
    unset req.http.Range;
    unset req.http.If-Range;
    unset req.http.If-None-Match;
    unset req.http.If-Modified-Since;
    unset req.http.Accept-Encoding;
    unset req.http.Pragma;
    # EventSource always sends no-cache, which no cache on the way to the origin may follow.
    unset req.http.Cache-Control;
    return (hash);
}

sub headwater_path {
    if (req.url ~ "^/channels/[^?]*%") {
        set req.url = regsuball(regsuball(req.url, "(?i)%2c", ","), "(?i)%7e", "~");
    }
    if (req.url ~ "^/channels/[^/?]+(\?|$)") {
        set req.http.Headwater-Path = "stream";
    } else if (req.url ~ "^/channels/[A-Za-z0-9][A-Za-z0-9._~-]*/history(\?|$)") {
        set req.http.Headwater-Path = "history";
    } else if (req.url ~ "^/channels/[A-Za-z0-9][A-Za-z0-9._~-]*/state(\?|$)") {
        set req.http.Headwater-Path = "state";
    }
}

# Takes the client's cursor from the header, else from ?lastEventId=, else from ?after=, and sends
# it in the header, so that it has one place in the key. The origin answers every text that is no
# valid cursor with the same `gap` event, so all such texts share one key. In the query, the first
# parameter of a name counts. The expressions here match whole parameters and never backtrack, so a
# query of any length is cheap.
sub headwater_cursor {
    std.collect(req.http.Last-Event-ID);
    if (req.http.Headwater-Path != "stream") {
        unset req.http.Last-Event-ID;
        return;
    }
    if (req.http.Last-Event-ID == "" || !req.http.Last-Event-ID) {
        unset req.http.Last-Event-ID;
        if (req.url ~ "^[^?]*\?(?:(?!lastEventId=)[^&]*&)*+lastEventId=[^&]") {
            set req.http.Last-Event-ID = regsub(req.url, "^[^?]*\?(?:(?!lastEventId=)[^&]*&)*+lastEventId=([^&]*).*$", "\1");
        } else if (req.url ~ "^[^?]*\?(?:(?!after=)[^&]*&)*+after=[^&]") {
            set req.http.Last-Event-ID = regsub(req.url, "^[^?]*\?(?:(?!after=)[^&]*&)*+after=([^&]*).*$", "\1");
        }
    }
    if (req.http.Last-Event-ID && req.http.Last-Event-ID !~ "^[0-9._-]{1,384}$") {
        set req.http.Last-Event-ID = "unknown";
    }
}

# Keeps each known parameter once, in a fixed order, and drops all others. A value that the origin
# would refuse becomes `malformed`.
sub headwater_query {
    set req.http.Headwater-Query = "";
    if (req.http.Headwater-Path == "stream") {
        if (!req.http.Last-Event-ID) {
            call headwater_start;
        }
        call headwater_lane;
        call headwater_mode;
    } else if (req.http.Headwater-Path == "history") {
        call headwater_page;
    }
    set req.url = regsub(req.url, "\?.*$", "") + regsub(req.http.Headwater-Query, "^&", "?");
    unset req.http.Headwater-Query;
    unset req.http.Headwater-Value;
}

# Where a stream without a cursor, or a page of history, begins: at an instant (since), else with
# the newest events (last).
sub headwater_start {
    if (req.url ~ "^[^?]*\?(?:(?!since=)[^&]*&)*+since=[^&]") {
        set req.http.Headwater-Value = regsub(req.url, "^[^?]*\?(?:(?!since=)[^&]*&)*+since=([^&]*).*$", "\1");
        if (req.http.Headwater-Value !~ "^[0-9A-Za-z:.%+-]{1,64}$") {
            set req.http.Headwater-Value = "malformed";
        }
        set req.http.Headwater-Query = req.http.Headwater-Query + "&since=" + req.http.Headwater-Value;
    } else if (req.url ~ "^[^?]*\?(?:(?!last=)[^&]*&)*+last=[^&]") {
        set req.http.Headwater-Value = regsub(req.url, "^[^?]*\?(?:(?!last=)[^&]*&)*+last=([^&]*).*$", "\1");
        if (req.http.Headwater-Value !~ "^[0-9]{1,4}$") {
            set req.http.Headwater-Value = "malformed";
        }
        set req.http.Headwater-Query = req.http.Headwater-Query + "&last=" + req.http.Headwater-Value;
    }
}

sub headwater_page {
    if (req.url ~ "^[^?]*\?(?:(?!after=)[^&]*&)*+after=[^&]") {
        set req.http.Headwater-Value = regsub(req.url, "^[^?]*\?(?:(?!after=)[^&]*&)*+after=([^&]*).*$", "\1");
        if (req.http.Headwater-Value !~ "^[0-9._-]{1,384}$") {
            set req.http.Headwater-Value = "malformed";
        }
        set req.http.Headwater-Query = "&after=" + req.http.Headwater-Value;
    }
    if (req.url ~ "^[^?]*\?(?:(?!before=)[^&]*&)*+before=[^&]") {
        set req.http.Headwater-Value = regsub(req.url, "^[^?]*\?(?:(?!before=)[^&]*&)*+before=([^&]*).*$", "\1");
        if (req.http.Headwater-Value !~ "^[0-9._-]{1,384}$") {
            set req.http.Headwater-Value = "malformed";
        }
        set req.http.Headwater-Query = req.http.Headwater-Query + "&before=" + req.http.Headwater-Value;
    }
    call headwater_start;
    if (req.url ~ "^[^?]*\?(?:(?!limit=)[^&]*&)*+limit=[^&]") {
        set req.http.Headwater-Value = regsub(req.url, "^[^?]*\?(?:(?!limit=)[^&]*&)*+limit=([^&]*).*$", "\1");
        if (req.http.Headwater-Value !~ "^[0-9]{1,4}$") {
            set req.http.Headwater-Value = "malformed";
        }
        set req.http.Headwater-Query = req.http.Headwater-Query + "&limit=" + req.http.Headwater-Value;
    }
}

# The parameters of delivery. A default value is left out.
sub headwater_mode {
    if (req.url ~ "^[^?]*\?(?:(?!mode=)[^&]*&)*+mode=[^&]") {
        set req.http.Headwater-Value = regsub(req.url, "^[^?]*\?(?:(?!mode=)[^&]*&)*+mode=([^&]*).*$", "\1");
        if (req.http.Headwater-Value !~ "^(hold|stream)$") {
            set req.http.Headwater-Value = "malformed";
        }
        if (req.http.Headwater-Value != "stream") {
            set req.http.Headwater-Query = req.http.Headwater-Query + "&mode=" + req.http.Headwater-Value;
        }
    }
    if (req.url ~ "^[^?]*\?(?:(?!format=)[^&]*&)*+format=[^&]") {
        set req.http.Headwater-Value = regsub(req.url, "^[^?]*\?(?:(?!format=)[^&]*&)*+format=([^&]*).*$", "\1");
        if (req.http.Headwater-Value !~ "^(json|raw)$") {
            set req.http.Headwater-Value = "malformed";
        }
        if (req.http.Headwater-Value != "raw") {
            set req.http.Headwater-Query = req.http.Headwater-Query + "&format=" + req.http.Headwater-Value;
        }
    }
}

# --lanes spreads the reconnects at a boundary over several instants; a client stays in its lane.
sub headwater_lane {
    if (req.url ~ "^[^?]*\?(?:(?!lane=)[^&]*&)*+lane=[^&]") {
        set req.http.Headwater-Value = regsub(req.url, "^[^?]*\?(?:(?!lane=)[^&]*&)*+lane=([^&]*).*$", "\1");
        if (req.http.Headwater-Value !~ "^[0-9]{1,2}$") {
            set req.http.Headwater-Value = "malformed";
        }
        set req.http.Headwater-Query = req.http.Headwater-Query + "&lane=" + req.http.Headwater-Value;
    } else if (std.integer(req.http.Headwater-Lanes, 1) > 1) {
        # X-Forwarded-For begins with the client's address, also behind a TLS proxy. A client that
        # forges it chooses its lane, which ?lane= allows anyway. Varnish has no modulo operator.
        set req.http.Headwater-Value = regsub(req.http.X-Forwarded-For, ",.*$", "");
        set req.http.Headwater-Value = headwater_hash.key(req.http.Headwater-Value)
            - (headwater_hash.key(req.http.Headwater-Value) / std.integer(req.http.Headwater-Lanes, 1))
            * std.integer(req.http.Headwater-Lanes, 1);
        set req.http.Headwater-Query = req.http.Headwater-Query + "&lane=" + req.http.Headwater-Value;
    }
}

sub vcl_hash {
    # The host is not in the key: there is one origin, and each invented host would be a key of its
    # own.
    if (req.http.Headwater-Path) {
        hash_data(req.url);
        hash_data(req.http.Last-Event-ID);
        return (lookup);
    }
}

sub vcl_hit {
    set req.http.Headwater-Cache = "hit";
}

sub vcl_miss {
    set req.http.Headwater-Cache = "fwd=uri-miss";
}

sub vcl_pass {
    set req.http.Headwater-Cache = "fwd=bypass";
}

sub vcl_pipe {
    unset bereq.http.Headwater-Lanes;
    # The origin compares the page's Origin with the host that the browser connected to.
    if (!bereq.http.X-Forwarded-Host) {
        set bereq.http.X-Forwarded-Host = bereq.http.Host;
    }
    set bereq.http.Host = "127.0.0.1:8080";
    set bereq.http.Upgrade = req.http.Upgrade;
    set bereq.http.Connection = "Upgrade";
}

sub vcl_backend_fetch {
    # The Host that the origin expects.
    set bereq.http.Host = "127.0.0.1:8080";
    unset bereq.http.Headwater-Lanes;
    unset bereq.http.Headwater-Cache;
    if (bereq.http.Headwater-Path) {
        # Varnish requests gzip by default, but compression delays the events of a stream.
        unset bereq.http.Accept-Encoding;
    }
    if (bereq.http.Headwater-Path == "stream") {
        # The response is shared, so it must not depend on the Accept header of the first client.
        set bereq.http.Accept = "text/event-stream";
    }
}

sub vcl_backend_response {
    if (bereq.http.Headwater-Path) {
        # PURGE matches this header.
        set beresp.http.Headwater-Channels = regsub(bereq.url, "^/channels/([^/?]*).*$", "\1");
        # A response is valid until its max-age and no longer: a client that receives a finished
        # segment again reconnects at once, in a loop.
        set beresp.grace = 0s;
        set beresp.keep = 0s;
        set beresp.do_gzip = false;
        set beresp.do_stream = true;
        unset beresp.http.Set-Cookie;
        # Headwater-Fresh is max-age with millisecond precision. It is outdated if another cache has
        # stored the response (Age).
        if (beresp.http.Headwater-Fresh && !beresp.http.Age && beresp.ttl > 0s) {
            set beresp.ttl = std.duration(beresp.http.Headwater-Fresh + "s", beresp.ttl);
        }
    }
    if (bereq.http.Headwater-Path == "stream" && (beresp.status >= 500 || beresp.status == 429)) {
        return (error(503));
    }
    if (bereq.http.Headwater-Path && !bereq.uncacheable
        && (beresp.status == 204 || beresp.status == 429 || beresp.status >= 500)) {
        # Without a lifetime, requests that wait for this key would be fetched one by one.
        set beresp.ttl = 1s;
        return (deliver);
    }
    # Otherwise beresp.ttl stays what max-age and Age make it, also behind another cache.
}

sub vcl_backend_error {
    set beresp.grace = 0s;
    set beresp.keep = 0s;
    # The object may be delivered to several pages, each of which needs its own CORS headers.
    set beresp.http.Headwater-Own = "1";
    if (bereq.http.Headwater-Path == "stream") {
        # Cached for a second: an origin that is down receives one request per second and cursor.
        set beresp.ttl = 1s;
        set beresp.status = 200;
        set beresp.reason = "OK";
        set beresp.http.Content-Type = "text/event-stream; charset=utf-8";
        set beresp.http.Cache-Control = "public, max-age=1";
        set beresp.http.Headwater-Shed = "edge";
        set bereq.http.Headwater-Retry = std.integer(real=std.random(2000, 5000));
        # The SSE event has a type and data, because some clients deliver an event without data as
        # an empty message.
        synthetic("retry: " + bereq.http.Headwater-Retry + {"
event: shed
data: {"reason":"edge","retry_ms":"} + bereq.http.Headwater-Retry + {"}

"});
        return (deliver);
    }
    if (bereq.http.Headwater-Path) {
        set beresp.ttl = 1s;
    }
    set beresp.http.Content-Type = "application/problem+json";
    set beresp.http.Cache-Control = "no-store";
    set beresp.http.Retry-After = "2";
    synthetic("""{"type":"urn:headwater:problem:origin-unreachable","title":"The origin cannot be reached","status":503,"detail":"the cache in front got no answer; whether a publish was accepted is not known, repeat it with its Idempotency-Key"}""");
    return (deliver);
}

# Sets the CORS headers that the origin would send. A response made by Varnish holds no secret, so
# any page may read it; a page that sends credentials needs its own origin named.
sub headwater_cors {
    set resp.http.Access-Control-Expose-Headers = "Headwater-Shed, Headwater-Response, Headwater-Fresh, Retry-After";
    if (req.http.Origin) {
        set resp.http.Access-Control-Allow-Origin = req.http.Origin;
        set resp.http.Access-Control-Allow-Credentials = "true";
        set resp.http.Vary = "Origin";
    } else {
        set resp.http.Access-Control-Allow-Origin = "*";
    }
}

sub vcl_deliver {
    # RFC 9211.
    set resp.http.Cache-Status = "headwater-varnish; " + req.http.Headwater-Cache;
    unset resp.http.Headwater-Channels;
    if (resp.http.Headwater-Own) {
        unset resp.http.Headwater-Own;
        call headwater_cors;
    }
}

sub vcl_synth {
    call headwater_cors;
    # An error of Varnish itself would end an EventSource, as any status but 200 does.
    if (req.http.Headwater-Path == "stream" && resp.status >= 500) {
        set resp.status = 200;
        set resp.reason = "OK";
        set resp.http.Content-Type = "text/event-stream; charset=utf-8";
        set resp.http.Cache-Control = "public, max-age=1";
        set resp.http.Headwater-Shed = "edge";
        synthetic({"retry: 5000
event: shed
data: {"reason":"edge","retry_ms":5000}

"});
        return (deliver);
    }
}

# PURGE /channels/{name} invalidates every cached response of a channel, whatever its cursor.
sub headwater_purge {
    # Behind a proxy, every request comes from the proxy's address. Such a request has more than one
    # address in X-Forwarded-For, so it is refused.
    if (client.ip !~ headwater_operators || req.http.X-Forwarded-For ~ ",") {
        return (synth(403, "PURGE is for headwater_operators"));
    }
    if (req.url !~ "^/channels/[A-Za-z0-9][A-Za-z0-9._~-]*$") {
        return (synth(400, "PURGE takes /channels/{name}"));
    }
    if (!std.ban("obj.http.Headwater-Channels ~ (^|,)"
        + regsuball(regsub(req.url, "^/channels/", ""), "\.", "[.]") + "(,|$)")) {
        return (synth(500, std.ban_error()));
    }
    return (synth(200, "purged"));
}
