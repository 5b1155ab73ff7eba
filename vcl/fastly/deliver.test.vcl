// Promises of deliver.vcl: what the cache says of itself, and what its own answers say to pages.
// Each runs the whole vcl_deliver of main.vcl.

// @scope: deliver
// @suite: the caches nearer the origin stand before us, and Age stays
sub test_deliver_list {
  set req.http.Headwater-Path = "stream";
  set resp.http.Cache-Status = "inner; hit";
  set resp.http.Age = "3";
  testing.call_subroutine("vcl_deliver");
  assert.match(resp.http.Cache-Status, {"^inner; hit, "headwater-edge""});
  assert.equal(resp.http.Age, "3");
}

// @scope: deliver
// @suite: what is for purging is not for clients
sub test_deliver_keys {
  set req.http.Headwater-Path = "stream";
  set resp.http.Surrogate-Key = "headwater";
  set resp.http.Cache-Tag = "headwater";
  testing.call_subroutine("vcl_deliver");
  assert.match(resp.http.Cache-Status, {"^"headwater-edge""});
  assert.not_match(resp.http.Surrogate-Key, ".");
  assert.not_match(resp.http.Cache-Tag, ".");
}

// @scope: deliver
// @suite: answers that are not ours are not touched
sub test_deliver_foreign {
  unset req.http.Headwater-Path;
  set resp.http.Surrogate-Key = "x";
  testing.call_subroutine("vcl_deliver");
  assert.not_match(resp.http.Cache-Status, ".");
  assert.equal(resp.http.Surrogate-Key, "x");
}

// @scope: deliver
// @suite: an answer of the edge's own names the page that asked, and lets it send credentials
sub test_deliver_page {
  set req.http.Headwater-Path = "stream";
  set req.http.Origin = "https://app.example";
  set resp.http.Headwater-Cors = "edge";
  set resp.http.Headwater-Shed = "edge";
  testing.call_subroutine("vcl_deliver");
  assert.state(deliver);
  assert.equal(resp.http.Access-Control-Allow-Origin, "https://app.example");
  assert.equal(resp.http.Access-Control-Allow-Credentials, "true");
  assert.equal(resp.http.Access-Control-Expose-Headers, "Headwater-Shed, Headwater-Response, Headwater-Fresh, Retry-After");
  assert.equal(resp.http.Vary, "Origin");
  assert.not_match(resp.http.Headwater-Cors, ".");
}

// @scope: deliver
// @suite: without a page it names none
sub test_deliver_no_page {
  set req.http.Headwater-Path = "history";
  set resp.http.Headwater-Cors = "edge";
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Access-Control-Allow-Origin, "*");
  assert.not_match(resp.http.Access-Control-Allow-Credentials, ".");
  assert.equal(resp.http.Access-Control-Expose-Headers, "Headwater-Shed, Headwater-Response, Headwater-Fresh, Retry-After");
  assert.not_match(resp.http.Headwater-Cors, ".");
}

// @scope: deliver
// @suite: an answer to a publish is readable to its page too
sub test_deliver_publish {
  unset req.http.Headwater-Path;
  set req.http.Origin = "https://app.example";
  set resp.http.Headwater-Cors = "edge";
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Access-Control-Allow-Origin, "https://app.example");
  assert.equal(resp.http.Access-Control-Allow-Credentials, "true");
  assert.not_match(resp.http.Headwater-Cors, ".");
}

// @scope: deliver
// @suite: what the origin says to pages is left as it is
sub test_deliver_origin {
  set req.http.Headwater-Path = "stream";
  set req.http.Origin = "https://app.example";
  set resp.http.Headwater-Shed = "connections";
  set resp.http.Access-Control-Allow-Origin = "https://other.example";
  set resp.http.Access-Control-Expose-Headers = "Headwater-Shed";
  set resp.http.Vary = "Last-Event-ID, Origin";
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Access-Control-Allow-Origin, "https://other.example");
  assert.not_match(resp.http.Access-Control-Allow-Credentials, ".");
  assert.equal(resp.http.Access-Control-Expose-Headers, "Headwater-Shed");
  assert.equal(resp.http.Vary, "Last-Event-ID, Origin");
}

// @scope: deliver
// @suite: the body of a kept failure goes to nobody
sub test_deliver_kept {
  set req.http.Headwater-Path = "stream";
  set resp.http.Headwater-Shed = "kept";
  testing.call_subroutine("vcl_deliver");
  assert.restart();
  assert.equal(req.http.Headwater-Shed, "edge");
}

// @scope: deliver
// @suite: what stands in its place goes out
sub test_deliver_shed {
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Shed = "edge";
  set resp.http.Headwater-Shed = "edge";
  testing.call_subroutine("vcl_deliver");
  assert.state(deliver);
  set resp.http.Headwater-Shed = "token-expired";
  testing.call_subroutine("vcl_deliver");
  assert.state(deliver);
  unset req.http.Headwater-Path;
  set resp.http.Headwater-Shed = "kept";
  testing.call_subroutine("vcl_deliver");
  assert.state(deliver);
}
