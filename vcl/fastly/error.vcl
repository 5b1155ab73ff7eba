# @scope: error
# The answers that the edge makes by itself: the origin cannot be reached or fails,
# or private.vcl has refused the request. For an EventSource it must be a 200, as
# any other status ends it for good; the 204 is sent where it shall end.
# There is no obj.ttl here: Fastly never caches what this subroutine makes.

declare local var.headwater_reason STRING;
declare local var.headwater_retry STRING;
declare local var.headwater_cookie STRING;

set var.headwater_reason = "";
if (req.http.Headwater-Path == "stream") {
  if (obj.status == 693) {
    # By the time the page asks again, it may have a new token.
    set var.headwater_reason = "token-expired";
  } elseif (obj.status == 690 || obj.status == 429 || (obj.status >= 500 && obj.status < 600)) {
    set var.headwater_reason = "edge";
  }
}

if (var.headwater_reason != "") {
  set obj.status = 200;
  set obj.response = "OK";
  set obj.http.Content-Type = "text/event-stream; charset=utf-8";
  # A shield sends this to the edges, which do cache it, as it is a plain 200 to them.
  set obj.http.Cache-Control = "public, max-age=1";
  if (var.headwater_reason != "edge") {
    set obj.http.Cache-Control = "private, no-store";
  }
  set obj.http.Headwater-Shed = var.headwater_reason;
  # deliver.vcl writes the headers for pages of other sites.
  set obj.http.Headwater-Cors = "edge";
  unset obj.http.Retry-After;
  # Spread, so that clients that were sent away together do not come back together.
  set var.headwater_retry = std.itoa(randomint(2000, 5000));
  # An event with data, as many clients make an empty message of a block without.
  synthetic {"retry: "} var.headwater_retry {"
event: shed
data: {"reason":""} var.headwater_reason {"","retry_ms":"} var.headwater_retry {"}

"};
  return(deliver);
}

if (req.http.Headwater-Path && obj.status >= 691 && obj.status <= 693) {
  # Refused by private.vcl. Each answer is for this one reader.
  set obj.http.Cache-Control = "private, no-store";
  set obj.http.Headwater-Cors = "edge";
  if (req.http.Headwater-Path == "stream") {
    # The one answer upon which an EventSource asks no more.
    set obj.status = 204;
    set obj.response = "No Content";
    synthetic "";
    return(deliver);
  }
  # The space before a last brace keeps it from ending the VCL string.
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
  # Linted alone, this file cannot see the table of init.vcl.
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
