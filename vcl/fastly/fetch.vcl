# @scope: fetch
# Streams live responses to clients as they arrive, and keeps failures of the
# origin from ending an EventSource. The origin's headers decide how long a
# stream may be cached: setting beresp.ttl here would ignore the Age that a
# shield has added, and a segment would be served after its end.

if (req.http.Headwater-Path == "stream") {
  unset beresp.http.Set-Cookie;
  # A stale stream is a finished recording: it ends at once, and the client
  # reconnects at once.
  set beresp.stale_while_revalidate = 0s;
  set beresp.stale_if_error = 0s;
  # Compression buffers bytes until it has enough of them, which delays events.
  set beresp.gzip = false;
  set beresp.brotli = false;

  if (beresp.status == 200) {
    if (beresp.http.Content-Type ~ "(?i)^text/event-stream") {
      set beresp.do_stream = true;
    }
  } elseif (beresp.status == 204 && req.http.Headwater-Access != "origin") {
    # The 204 goes to many clients at once, so it is cached for a second. The
    # header is for the code after this snippet, which caches a response without
    # a lifetime for an hour.
    set beresp.cacheable = true;
    set beresp.ttl = 1s;
    set beresp.http.Cache-Control = "public, max-age=1";
    unset beresp.http.Surrogate-Control;
  } elseif (beresp.status >= 500 || beresp.status == 429) {
    # A passed response is not cached, so error.vcl can write its body.
    if (req.http.Authorization || req.http.Headwater-Access == "origin") {
      error 690 "Headwater shed";
    }
    # An EventSource stops permanently on any status but 200. `error` would
    # write a correct body, but its object is never cached, and the waiting
    # requests would go to the origin one by one. So this object is cached, with
    # a body that no client receives: for each request hit.vcl or deliver.vcl
    # replaces it with the response of error.vcl. Headers that name the page of
    # the first request must not reach other pages.
    set beresp.status = 200;
    set beresp.response = "OK";
    set beresp.cacheable = true;
    set beresp.ttl = 1s;
    set beresp.http.Content-Type = "text/event-stream; charset=utf-8";
    set beresp.http.Cache-Control = "public, max-age=1";
    set beresp.http.Headwater-Shed = "kept";
    unset beresp.http.Access-Control-Allow-Origin;
    unset beresp.http.Access-Control-Allow-Credentials;
    unset beresp.http.Vary;
    unset beresp.http.Surrogate-Control;
    unset beresp.http.Expires;
    unset beresp.http.Retry-After;
  }
} elseif (req.http.Headwater-Path == "history" && req.http.Headwater-Access != "origin" && (beresp.status >= 500 || beresp.status == 429)) {
  # If the response were uncacheable, it would be fetched again for each waiting
  # request.
  set beresp.cacheable = true;
  set beresp.ttl = 1s;
  set beresp.stale_while_revalidate = 0s;
  set beresp.stale_if_error = 0s;
  set beresp.http.Cache-Control = "public, max-age=1";
  unset beresp.http.Surrogate-Control;
  # The code after this snippet would send one more request to the origin for
  # each waiting request.
  return(deliver);
}
