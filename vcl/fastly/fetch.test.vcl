// Promises of fetch.vcl: what of the origin is kept, for how long, and how it flows.
// Each runs the whole vcl_fetch of main.vcl.

// @scope: fetch
// @suite: a stream flows, is not compressed, and is never served stale
sub test_fetch_stream {
  set req.http.Headwater-Path = "stream";
  set beresp.status = 200;
  set beresp.http.Content-Type = "text/event-stream; charset=utf-8";
  set beresp.http.Cache-Control = "public, max-age=23, no-transform";
  set beresp.http.X-Accel-Buffering = "no";
  set beresp.http.Incremental = "?1";
  set beresp.http.Vary = "Last-Event-ID";
  set beresp.http.Set-Cookie = "a=1";
  set beresp.ttl = 17s;
  set beresp.gzip = true;
  set beresp.brotli = true;
  set beresp.do_stream = false;
  set beresp.stale_while_revalidate = 60s;
  set beresp.stale_if_error = 60s;
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.true(beresp.do_stream);
  assert.false(beresp.gzip);
  assert.false(beresp.brotli);
  assert.equal(beresp.stale_while_revalidate, 0s);
  assert.equal(beresp.stale_if_error, 0s);
  assert.equal(beresp.ttl, 17s);
  assert.not_match(beresp.http.Set-Cookie, ".");
  assert.equal(beresp.http.Vary, "Last-Event-ID");
  assert.equal(beresp.http.Cache-Control, "public, max-age=23, no-transform");
  assert.equal(beresp.http.X-Accel-Buffering, "no");
  assert.equal(beresp.http.Incremental, "?1");
  assert.not_match(beresp.http.Headwater-Shed, ".");
}

// @scope: fetch
// @suite: a stream flows however its type is written
sub test_fetch_type {
  set req.http.Headwater-Path = "stream";
  set beresp.status = 200;
  set beresp.do_stream = false;
  set beresp.http.Content-Type = "text/event-stream";
  testing.call_subroutine("vcl_fetch");
  assert.true(beresp.do_stream);
  set beresp.do_stream = false;
  set beresp.http.Content-Type = "Text/Event-Stream;charset=UTF-8";
  testing.call_subroutine("vcl_fetch");
  assert.true(beresp.do_stream);
}

// @scope: fetch
// @suite: an answer that is no stream does not flow
sub test_fetch_not_stream {
  set req.http.Headwater-Path = "stream";
  set beresp.status = 200;
  set beresp.http.Content-Type = "application/json";
  set beresp.do_stream = false;
  testing.call_subroutine("vcl_fetch");
  assert.false(beresp.do_stream);
}

// @scope: fetch
// @suite: the end of a channel is kept for a second
sub test_fetch_204 {
  set req.http.Headwater-Path = "stream";
  set beresp.status = 204;
  set beresp.cacheable = false;
  set beresp.http.Surrogate-Control = "max-age=99";
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.equal(beresp.status, 204);
  assert.true(beresp.cacheable);
  assert.equal(beresp.ttl, 1s);
  assert.equal(beresp.http.Cache-Control, "public, max-age=1");
  assert.not_match(beresp.http.Surrogate-Control, ".");
}

// @scope: fetch
// @suite: a 500 of the origin becomes a stream that is kept for a second
sub test_fetch_500 {
  set req.http.Headwater-Path = "stream";
  set beresp.status = 500;
  set beresp.response = "Broken";
  set beresp.cacheable = false;
  set beresp.http.Content-Type = "text/html";
  set beresp.http.Cache-Control = "no-store, private";
  set beresp.http.Surrogate-Control = "max-age=99";
  set beresp.http.Expires = "0";
  set beresp.http.Retry-After = "99";
  set beresp.http.Access-Control-Allow-Origin = "https://app.example";
  set beresp.http.Access-Control-Allow-Credentials = "true";
  set beresp.http.Vary = "Origin";
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.equal(beresp.status, 200);
  assert.equal(beresp.response, "OK");
  assert.true(beresp.cacheable);
  assert.equal(beresp.ttl, 1s);
  assert.equal(beresp.http.Content-Type, "text/event-stream; charset=utf-8");
  assert.equal(beresp.http.Cache-Control, "public, max-age=1");
  assert.equal(beresp.http.Headwater-Shed, "kept");
  assert.not_match(beresp.http.Access-Control-Allow-Origin, ".");
  assert.not_match(beresp.http.Access-Control-Allow-Credentials, ".");
  assert.not_match(beresp.http.Vary, ".");
  assert.not_match(beresp.http.Surrogate-Control, ".");
  assert.not_match(beresp.http.Expires, ".");
  assert.not_match(beresp.http.Retry-After, ".");
}

// @scope: fetch
// @suite: a 502 of the origin becomes a stream that is kept for a second
sub test_fetch_502 {
  set req.http.Headwater-Path = "stream";
  set beresp.status = 502;
  set beresp.response = "Broken";
  set beresp.cacheable = false;
  set beresp.http.Content-Type = "text/html";
  set beresp.http.Cache-Control = "no-store, private";
  set beresp.http.Surrogate-Control = "max-age=99";
  set beresp.http.Expires = "0";
  set beresp.http.Retry-After = "99";
  set beresp.http.Access-Control-Allow-Origin = "https://app.example";
  set beresp.http.Access-Control-Allow-Credentials = "true";
  set beresp.http.Vary = "Origin";
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.equal(beresp.status, 200);
  assert.equal(beresp.response, "OK");
  assert.true(beresp.cacheable);
  assert.equal(beresp.ttl, 1s);
  assert.equal(beresp.http.Content-Type, "text/event-stream; charset=utf-8");
  assert.equal(beresp.http.Cache-Control, "public, max-age=1");
  assert.equal(beresp.http.Headwater-Shed, "kept");
  assert.not_match(beresp.http.Access-Control-Allow-Origin, ".");
  assert.not_match(beresp.http.Access-Control-Allow-Credentials, ".");
  assert.not_match(beresp.http.Vary, ".");
  assert.not_match(beresp.http.Surrogate-Control, ".");
  assert.not_match(beresp.http.Expires, ".");
  assert.not_match(beresp.http.Retry-After, ".");
}

// @scope: fetch
// @suite: a 503 of the origin becomes a stream that is kept for a second
sub test_fetch_503 {
  set req.http.Headwater-Path = "stream";
  set beresp.status = 503;
  set beresp.response = "Broken";
  set beresp.cacheable = false;
  set beresp.http.Content-Type = "text/html";
  set beresp.http.Cache-Control = "no-store, private";
  set beresp.http.Surrogate-Control = "max-age=99";
  set beresp.http.Expires = "0";
  set beresp.http.Retry-After = "99";
  set beresp.http.Access-Control-Allow-Origin = "https://app.example";
  set beresp.http.Access-Control-Allow-Credentials = "true";
  set beresp.http.Vary = "Origin";
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.equal(beresp.status, 200);
  assert.equal(beresp.response, "OK");
  assert.true(beresp.cacheable);
  assert.equal(beresp.ttl, 1s);
  assert.equal(beresp.http.Content-Type, "text/event-stream; charset=utf-8");
  assert.equal(beresp.http.Cache-Control, "public, max-age=1");
  assert.equal(beresp.http.Headwater-Shed, "kept");
  assert.not_match(beresp.http.Access-Control-Allow-Origin, ".");
  assert.not_match(beresp.http.Access-Control-Allow-Credentials, ".");
  assert.not_match(beresp.http.Vary, ".");
  assert.not_match(beresp.http.Surrogate-Control, ".");
  assert.not_match(beresp.http.Expires, ".");
  assert.not_match(beresp.http.Retry-After, ".");
}

// @scope: fetch
// @suite: a 504 of the origin becomes a stream that is kept for a second
sub test_fetch_504 {
  set req.http.Headwater-Path = "stream";
  set beresp.status = 504;
  set beresp.response = "Broken";
  set beresp.cacheable = false;
  set beresp.http.Content-Type = "text/html";
  set beresp.http.Cache-Control = "no-store, private";
  set beresp.http.Surrogate-Control = "max-age=99";
  set beresp.http.Expires = "0";
  set beresp.http.Retry-After = "99";
  set beresp.http.Access-Control-Allow-Origin = "https://app.example";
  set beresp.http.Access-Control-Allow-Credentials = "true";
  set beresp.http.Vary = "Origin";
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.equal(beresp.status, 200);
  assert.equal(beresp.response, "OK");
  assert.true(beresp.cacheable);
  assert.equal(beresp.ttl, 1s);
  assert.equal(beresp.http.Content-Type, "text/event-stream; charset=utf-8");
  assert.equal(beresp.http.Cache-Control, "public, max-age=1");
  assert.equal(beresp.http.Headwater-Shed, "kept");
  assert.not_match(beresp.http.Access-Control-Allow-Origin, ".");
  assert.not_match(beresp.http.Access-Control-Allow-Credentials, ".");
  assert.not_match(beresp.http.Vary, ".");
  assert.not_match(beresp.http.Surrogate-Control, ".");
  assert.not_match(beresp.http.Expires, ".");
  assert.not_match(beresp.http.Retry-After, ".");
}

// @scope: fetch
// @suite: a 429 of the origin becomes a stream that is kept for a second
sub test_fetch_429 {
  set req.http.Headwater-Path = "stream";
  set beresp.status = 429;
  set beresp.response = "Broken";
  set beresp.cacheable = false;
  set beresp.http.Content-Type = "text/html";
  set beresp.http.Cache-Control = "no-store, private";
  set beresp.http.Surrogate-Control = "max-age=99";
  set beresp.http.Expires = "0";
  set beresp.http.Retry-After = "99";
  set beresp.http.Access-Control-Allow-Origin = "https://app.example";
  set beresp.http.Access-Control-Allow-Credentials = "true";
  set beresp.http.Vary = "Origin";
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.equal(beresp.status, 200);
  assert.equal(beresp.response, "OK");
  assert.true(beresp.cacheable);
  assert.equal(beresp.ttl, 1s);
  assert.equal(beresp.http.Content-Type, "text/event-stream; charset=utf-8");
  assert.equal(beresp.http.Cache-Control, "public, max-age=1");
  assert.equal(beresp.http.Headwater-Shed, "kept");
  assert.not_match(beresp.http.Access-Control-Allow-Origin, ".");
  assert.not_match(beresp.http.Access-Control-Allow-Credentials, ".");
  assert.not_match(beresp.http.Vary, ".");
  assert.not_match(beresp.http.Surrogate-Control, ".");
  assert.not_match(beresp.http.Expires, ".");
  assert.not_match(beresp.http.Retry-After, ".");
}

// @scope: fetch
// @suite: a failure of a passed stream gets its body at once
sub test_fetch_authorized {
  set req.http.Headwater-Path = "stream";
  set req.http.Authorization = "Bearer x";
  set beresp.status = 503;
  testing.call_subroutine("vcl_fetch");
  assert.error(690);
}

// @scope: fetch
// @suite: a 400 goes through unchanged
sub test_fetch_400 {
  set req.http.Headwater-Path = "stream";
  set beresp.status = 400;
  set beresp.http.Content-Type = "application/problem+json";
  set beresp.http.Cache-Control = "max-age=7";
  testing.call_subroutine("vcl_fetch");
  assert.equal(beresp.status, 400);
  assert.equal(beresp.http.Content-Type, "application/problem+json");
  assert.equal(beresp.http.Cache-Control, "max-age=7");
  assert.not_match(beresp.http.Headwater-Shed, ".");
}

// @scope: fetch
// @suite: a 404 goes through unchanged
sub test_fetch_404 {
  set req.http.Headwater-Path = "stream";
  set beresp.status = 404;
  set beresp.http.Content-Type = "application/problem+json";
  set beresp.http.Cache-Control = "max-age=7";
  testing.call_subroutine("vcl_fetch");
  assert.equal(beresp.status, 404);
  assert.equal(beresp.http.Content-Type, "application/problem+json");
  assert.equal(beresp.http.Cache-Control, "max-age=7");
  assert.not_match(beresp.http.Headwater-Shed, ".");
}

// @scope: fetch
// @suite: a 405 goes through unchanged
sub test_fetch_405 {
  set req.http.Headwater-Path = "stream";
  set beresp.status = 405;
  set beresp.http.Content-Type = "application/problem+json";
  set beresp.http.Cache-Control = "max-age=7";
  testing.call_subroutine("vcl_fetch");
  assert.equal(beresp.status, 405);
  assert.equal(beresp.http.Content-Type, "application/problem+json");
  assert.equal(beresp.http.Cache-Control, "max-age=7");
  assert.not_match(beresp.http.Headwater-Shed, ".");
}

// @scope: fetch
// @suite: a 503 on a history path stays one and is kept for a second
sub test_fetch_history_503 {
  set beresp.http.Set-Cookie = "a=1";
  set req.http.Headwater-Path = "history";
  set beresp.status = 503;
  set beresp.cacheable = false;
  set beresp.http.Cache-Control = "no-store";
  set beresp.http.Surrogate-Control = "max-age=99";
  set beresp.stale_if_error = 60s;
  set beresp.stale_while_revalidate = 60s;
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.equal(beresp.status, 503);
  assert.true(beresp.cacheable);
  assert.equal(beresp.ttl, 1s);
  assert.equal(beresp.http.Cache-Control, "public, max-age=1");
  assert.not_match(beresp.http.Surrogate-Control, ".");
  assert.equal(beresp.stale_if_error, 0s);
  assert.equal(beresp.stale_while_revalidate, 0s);
}

// @scope: fetch
// @suite: a 429 on a history path stays one and is kept for a second
sub test_fetch_history_429 {
  set beresp.http.Set-Cookie = "a=1";
  set req.http.Headwater-Path = "history";
  set beresp.status = 429;
  set beresp.cacheable = false;
  set beresp.http.Cache-Control = "no-store";
  set beresp.http.Surrogate-Control = "max-age=99";
  set beresp.stale_if_error = 60s;
  set beresp.stale_while_revalidate = 60s;
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.equal(beresp.status, 429);
  assert.true(beresp.cacheable);
  assert.equal(beresp.ttl, 1s);
  assert.equal(beresp.http.Cache-Control, "public, max-age=1");
  assert.not_match(beresp.http.Surrogate-Control, ".");
  assert.equal(beresp.stale_if_error, 0s);
  assert.equal(beresp.stale_while_revalidate, 0s);
}

// @scope: fetch
// @suite: a failure on a foreign path is not ours
sub test_fetch_foreign {
  unset req.http.Headwater-Path;
  set beresp.status = 503;
  set beresp.http.Set-Cookie = "a=1";
  testing.call_subroutine("vcl_fetch");
  assert.equal(beresp.status, 503);
  assert.not_match(beresp.http.Headwater-Shed, ".");
  assert.equal(beresp.http.Set-Cookie, "a=1");
}

// @scope: fetch
// @suite: an answer on a history path is kept as long as the origin says
sub test_fetch_history {
  set req.http.Headwater-Path = "history";
  set beresp.status = 200;
  set beresp.ttl = 17s;
  set beresp.http.Cache-Control = "public, max-age=3600, immutable";
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.equal(beresp.status, 200);
  assert.equal(beresp.ttl, 17s);
  assert.equal(beresp.http.Cache-Control, "public, max-age=3600, immutable");
}
