# @scope: error
# What a client hears when the origin says nothing, or nothing fit to pass on.
# To an EventSource it must be a 200, as any other status ends it for good.
# There is no obj.ttl here: Fastly never caches what this subroutine makes.

if (req.http.Headwater-Path && obj.status >= 691 && obj.status <= 693) {
  # Refused by private.vcl. Each answer is for this one reader.
  set obj.http.Cache-Control = "private, no-store";
  if (req.http.Origin) {
    set obj.http.Access-Control-Allow-Origin = req.http.Origin;
    set obj.http.Access-Control-Allow-Credentials = "true";
    set obj.http.Access-Control-Expose-Headers = "Headwater-Shed";
    set obj.http.Vary = "Origin";
  }
  if (req.http.Headwater-Path == "stream") {
    if (obj.status == 693) {
      # By the time it asks again, its page may have a new token.
      set obj.status = 200;
      set obj.response = "OK";
      set obj.http.Content-Type = "text/event-stream";
      set obj.http.Headwater-Shed = "token-expired";
      synthetic {"retry: "} std.itoa(randomint(2000, 5000)) {"

"};
    } else {
      # The one answer upon which an EventSource asks no more.
      set obj.status = 204;
      set obj.response = "No Content";
      synthetic "";
    }
    return(deliver);
  }
  set obj.http.Content-Type = "application/problem+json";
  if (obj.status == 692) {
    set obj.status = 403;
    set obj.response = "Forbidden";
    synthetic {"{"type":"urn:headwater:problem:scope","title":"Forbidden","status":403,"detail":"The token has no subscribe scope for this channel." }"};
  } else {
    set obj.status = 401;
    set obj.response = "Unauthorized";
    set obj.http.WWW-Authenticate = "Bearer";
    synthetic {"{"type":"urn:headwater:problem:token","title":"Unauthorized","status":401,"detail":"This channel is private: a token that is valid now is needed." }"};
  }
  return(deliver);
}

if (req.http.Headwater-Path == "stream"
    && (obj.status == 690 || obj.status == 429 || (obj.status >= 500 && obj.status < 600))) {
  set obj.status = 200;
  set obj.response = "OK";
  set obj.http.Content-Type = "text/event-stream";
  # A shield answers this to the edges, and they, to whom it is a plain 200, do cache it.
  set obj.http.Cache-Control = "public, max-age=1";
  set obj.http.Headwater-Shed = "edge";
  set obj.http.Access-Control-Allow-Origin = "*";
  set obj.http.Access-Control-Expose-Headers = "Headwater-Shed";
  unset obj.http.Retry-After;
  # Spread, so that those who were refused together do not come back together.
  synthetic {"retry: "} std.itoa(randomint(2000, 5000)) {"

"};
  return(deliver);
} elseif (obj.status == 503 && req.url.path ~ "^/channels/") {
  set obj.http.Content-Type = "application/problem+json";
  set obj.http.Cache-Control = "no-store";
  set obj.http.Retry-After = "2";
  set obj.http.Access-Control-Allow-Origin = "*";
  if (req.http.Headwater-Access && req.http.Origin) {
    set obj.http.Access-Control-Allow-Origin = req.http.Origin;
    set obj.http.Access-Control-Allow-Credentials = "true";
    set obj.http.Vary = "Origin";
  }
  # The space before the last brace keeps it from ending the VCL string.
  synthetic {"{"type":"urn:headwater:problem:origin-unreachable","title":"Origin unreachable","status":503,"detail":"The edge had no answer from the origin. Send it again; a publish with the same Idempotency-Key is stored once." }"};
  return(deliver);
}
