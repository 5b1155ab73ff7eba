// Promises of deliver.vcl: what the cache says of itself.
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
