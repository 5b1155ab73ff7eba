# @scope: error
# The responses that the edge makes itself: when the origin cannot be reached or
# fails, or when private.vcl has refused the request. An EventSource must get a
# 200, because any other status stops it permanently; it gets a 204 where it
# must stop. There is no obj.ttl here, because Fastly never caches what this
# subroutine makes.

declare local var.headwater_reason STRING;
declare local var.headwater_retry STRING;
declare local var.headwater_cookie STRING;

set var.headwater_reason = "";
if (req.http.Headwater-Path == "stream") {
  if (obj.status == 693) {
    # When the page reconnects, it may have a new token.
    set var.headwater_reason = "token-expired";
  } elseif (obj.status == 690 || obj.status == 429 || (obj.status >= 500 && obj.status < 600)) {
    set var.headwater_reason = "edge";
  }
}

if (var.headwater_reason != "") {
  set obj.status = 200;
  set obj.response = "OK";
  set obj.http.Content-Type = "text/event-stream; charset=utf-8";
  # A shield sends this response to the edges, which cache it like any other
  # 200.
  set obj.http.Cache-Control = "public, max-age=1";
  if (var.headwater_reason != "edge") {
    set obj.http.Cache-Control = "private, no-store";
  }
  set obj.http.Headwater-Shed = var.headwater_reason;
  # deliver.vcl adds the CORS headers.
  set obj.http.Headwater-Cors = "edge";
  unset obj.http.Retry-After;
  # The wait is random, so that clients that are shed together do not reconnect
  # together.
  set var.headwater_retry = std.itoa(randomint(2000, 5000));
  # The SSE event has data, because many clients deliver an event without data
  # as an empty message.
  synthetic {"retry: "} var.headwater_retry {"
event: shed
data: {"reason":""} var.headwater_reason {"","retry_ms":"} var.headwater_retry {"}

"};
  return(deliver);
}

if (req.http.Headwater-Path && obj.status >= 691 && obj.status <= 693) {
  # Refused by private.vcl. The response is for this client only.
  set obj.http.Cache-Control = "private, no-store";
  set obj.http.Headwater-Cors = "edge";
  if (req.http.Headwater-Path == "stream") {
    # A 204 is the status after which an EventSource does not reconnect.
    set obj.status = 204;
    set obj.response = "No Content";
    synthetic "";
    return(deliver);
  }
  # Without the space before its last brace, the VCL string would end there.
  set obj.http.Content-Type = "application/problem+json";
  if (obj.status == 692) {
    set obj.status = 403;
    set obj.response = "Forbidden";
    synthetic {"{"type":"urn:headwater:problem:scope","title":"Forbidden","status":403,"detail":"The token has no subscribe scope for this channel." }"};
    return(deliver);
  }
  set obj.http.WWW-Authenticate = "Bearer";
  set obj.response = "Unauthorized";
  if (obj.status == 693) {
    set obj.status = 401;
    synthetic {"{"type":"urn:headwater:problem:token","title":"Unauthorized","status":401,"detail":"The token has expired; get a new one." }"};
    return(deliver);
  }
  set obj.status = 401;
  # When this file is linted alone, the table of init.vcl is not visible.
  // falco-ignore-next-line
  set var.headwater_cookie = json.escape(table.lookup(headwater, "cookie_name", "headwater"));
  synthetic {"{"type":"urn:headwater:problem:token","title":"Unauthorized","status":401,"detail":"This channel is private and needs a valid token: as Authorization: Bearer, or from a browser as ?access_token= in the query or in the cookie "} var.headwater_cookie {"." }"};
  return(deliver);
}

if (obj.status == 503 && req.url.path ~ "^/channels/") {
  set obj.http.Content-Type = "application/problem+json";
  set obj.http.Cache-Control = "no-store";
  set obj.http.Retry-After = "2";
  set obj.http.Headwater-Cors = "edge";
  synthetic {"{"type":"urn:headwater:problem:origin-unreachable","title":"Origin unreachable","status":503,"detail":"The edge had no answer from the origin. Send it again; a publish with the same Idempotency-Key is stored once." }"};
  return(deliver);
}
