# Headwater behind Varnish 7.1 or newer: one origin request for a segment, however many clients.
#
# Every client that was live at a segment's end comes back with the same cursor (Last-Event-ID).
# The cursor is part of the cache key, the response is streamed to all who ask for that key while
# it is still being fetched, and it is never handed out past its end. What a client may vary is
# brought into one spelling first, and a failing origin never shows: any answer but a 200 would
# end a browser's EventSource for good.
#
# Run it so (`headwater edge varnish --origin HOST:PORT` prints this file filled in):
#
#   varnishd -a :6081 -f $PWD/headwater.vcl -s malloc,1g -s Transient=malloc,1g \
#     -p thread_pools=2 -p thread_pool_min=200 -p thread_pool_max=10000 \
#     -p thread_pool_add_delay=0 -p thread_queue_limit=10000 -p send_timeout=630
#
#   threads        A streaming client holds a worker thread, and so does every fetch: the number of
#                  clients is thread_pools x thread_pool_max.
#   thread_queue_limit  At a boundary all clients come back within a moment. With the default of 20
#                  those that find no free thread yet are dropped instead of queued.
#   Transient      Holds what lives for less than `shortlived` (10 s); without a size it has no bound.
#   send_timeout   Cuts a response that takes longer, so it must exceed --segment.
#
# TLS and HTTP/2 go in front: nginx/varnish.conf.
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

# Who may PURGE.
acl headwater_operators {
    "127.0.0.1";
    "::1";
}

sub headwater_settings {
    # As the origin's --lanes; 1 = off.
    set req.http.Headwater-Lanes = "1";
}

sub vcl_init {
    # Only for its hash of a text.
    new headwater_hash = directors.shard();
}

sub vcl_recv {
    unset req.http.Headwater-Path;
    unset req.http.Headwater-Cache;
    call headwater_settings;
    if (req.method == "PURGE") {
        call headwater_purge;
    }
    # Only a whole handshake (RFC 6455, section 4.1): everything that follows it on the connection goes
    # to the origin as it comes. The origin refuses all others, and closes the connection.
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
    # Publishes, and what is not a channel. A request with credentials, or with a name in a spelling
    # that nobody needs, is the origin's to judge.
    if (!req.http.Headwater-Path || req.http.Authorization || req.url ~ "^[^?]*%") {
        return (pass);
    }
    # So is one for a channel of --private, with its cookie or access_token. Shipped, none is.
    if (req.url ~ "^/channels/(?:[^/?]*,)?(?!)") {
        return (pass);
    }
    call headwater_cursor;
    call headwater_query;
    # Nothing of a client's own goes into an answer that is shared.
    unset req.http.Cookie;
    # Varnish does not pass on a header that the client names in Connection, but it does pass on one
    # that is set here. The key has the cursor and the page, so the origin must get them too.
    if (req.http.Last-Event-ID) {
        set req.http.Last-Event-ID = req.http.Last-Event-ID;
    }
    if (req.http.Origin) {
        set req.http.Origin = req.http.Origin;
    }
    # With --cors-origin the origin's answers name the page that asks (`Vary: Origin`). Give the same
    # pages to `headwater edge varnish`: then the requests of all other pages are one. As shipped, each
    # invented Origin is a stream of its own, which matters only where the origin has the flag.
    if (req.http.Origin !~ ".*") {
        unset req.http.Origin;
    }
    unset req.http.Range;
    unset req.http.If-Range;
    unset req.http.If-None-Match;
    unset req.http.If-Modified-Since;
    unset req.http.Accept-Encoding;
    unset req.http.Pragma;
    # EventSource always sends no-cache: no cache on the way to the origin may heed it either.
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

# The cursor of a client, wherever it sends it: in the header, else as ?lastEventId=, else as ?after=.
# It goes on in the header, so that it is in one place of the key. Text that is no cursor is the same
# to the origin whatever it says (a `gap` event), so it is one key. In the query the first parameter
# of a name counts. The expressions here step over whole parameters and never back, so no query is
# too much for them.
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

# The known parameters, once each, in one order; what the origin would refuse gets one spelling.
# Others are dropped.
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

# Where a stream without a cursor begins, or a page of history: at an instant, else with the newest
# events.
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

# How the stream is delivered. A default is left out.
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

# With --lanes the wave of reconnects at a boundary is split; a client stays in its lane.
sub headwater_lane {
    if (req.url ~ "^[^?]*\?(?:(?!lane=)[^&]*&)*+lane=[^&]") {
        set req.http.Headwater-Value = regsub(req.url, "^[^?]*\?(?:(?!lane=)[^&]*&)*+lane=([^&]*).*$", "\1");
        if (req.http.Headwater-Value !~ "^[0-9]{1,2}$") {
            set req.http.Headwater-Value = "malformed";
        }
        set req.http.Headwater-Query = req.http.Headwater-Query + "&lane=" + req.http.Headwater-Value;
    } else if (std.integer(req.http.Headwater-Lanes, 1) > 1) {
        # X-Forwarded-For begins with the client, also where a TLS proxy stands in front. Who makes
        # one up chooses a lane, as ?lane= allows anyway. Varnish has no modulo.
        set req.http.Headwater-Value = regsub(req.http.X-Forwarded-For, ",.*$", "");
        set req.http.Headwater-Value = headwater_hash.key(req.http.Headwater-Value)
            - (headwater_hash.key(req.http.Headwater-Value) / std.integer(req.http.Headwater-Lanes, 1))
            * std.integer(req.http.Headwater-Lanes, 1);
        set req.http.Headwater-Query = req.http.Headwater-Query + "&lane=" + req.http.Headwater-Value;
    }
}

sub vcl_hash {
    # Not the host: there is one origin, and an invented host would be a key of its own.
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
    # The origin compares the page's Origin with the host that the page connected to.
    if (!bereq.http.X-Forwarded-Host) {
        set bereq.http.X-Forwarded-Host = bereq.http.Host;
    }
    set bereq.http.Host = "127.0.0.1:8080";
    set bereq.http.Upgrade = req.http.Upgrade;
    set bereq.http.Connection = "Upgrade";
}

sub vcl_backend_fetch {
    # The Host that the origin knows itself by.
    set bereq.http.Host = "127.0.0.1:8080";
    unset bereq.http.Headwater-Lanes;
    unset bereq.http.Headwater-Cache;
    if (bereq.http.Headwater-Path) {
        # Varnish asks for gzip by itself, and a compressed stream is held back.
        unset bereq.http.Accept-Encoding;
    }
    if (bereq.http.Headwater-Path == "stream") {
        # The answer is for everyone, so it must not depend on what the first one accepts.
        set bereq.http.Accept = "text/event-stream";
    }
}

sub vcl_backend_response {
    if (bereq.http.Headwater-Path) {
        # For PURGE.
        set beresp.http.Headwater-Channels = regsub(bereq.url, "^/channels/([^/?]*).*$", "\1");
        # An answer is true until its max-age and no longer: a finished segment that is handed out
        # again sends its clients round in a circle.
        set beresp.grace = 0s;
        set beresp.keep = 0s;
        set beresp.do_gzip = false;
        set beresp.do_stream = true;
        unset beresp.http.Set-Cookie;
        # The same as max-age, to the millisecond; old where another cache has held the answer.
        if (beresp.http.Headwater-Fresh && !beresp.http.Age && beresp.ttl > 0s) {
            set beresp.ttl = std.duration(beresp.http.Headwater-Fresh + "s", beresp.ttl);
        }
    }
    if (bereq.http.Headwater-Path == "stream" && (beresp.status >= 500 || beresp.status == 429)) {
        return (error(503));
    }
    if (bereq.http.Headwater-Path && !bereq.uncacheable
        && (beresp.status == 204 || beresp.status == 429 || beresp.status >= 500)) {
        # Otherwise a herd that meets one of these is served one by one.
        set beresp.ttl = 1s;
        return (deliver);
    }
    # Otherwise beresp.ttl stays what max-age and Age make it, also behind another cache.
}

sub vcl_backend_error {
    set beresp.grace = 0s;
    set beresp.keep = 0s;
    # The object may be delivered to several pages, each of which needs CORS headers of its own.
    set beresp.http.Headwater-Own = "1";
    if (bereq.http.Headwater-Path == "stream") {
        # Kept for a second: an origin that is down sees one try a second and cursor.
        set beresp.ttl = 1s;
        set beresp.status = 200;
        set beresp.reason = "OK";
        set beresp.http.Content-Type = "text/event-stream; charset=utf-8";
        set beresp.http.Cache-Control = "public, max-age=1";
        set beresp.http.Headwater-Shed = "edge";
        set bereq.http.Headwater-Retry = std.integer(real=std.random(2000, 5000));
        # The block has a type and data, because some clients take a block without data for an
        # empty event.
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

# The CORS headers that the origin would send. An answer of Varnish's own holds no secret, so any page
# may read it; a page that sends credentials needs its own origin named.
sub headwater_cors {
    set resp.http.Access-Control-Expose-Headers = "Headwater-Shed, Headwater-Response, Headwater-Fresh";
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
    # A fault of Varnish itself would end an EventSource as any other answer does.
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

# PURGE /channels/{name} forgets every answer of a channel, whatever its cursor.
sub headwater_purge {
    # Behind a proxy everybody comes from the proxy's address: it has put the client's before its own.
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
