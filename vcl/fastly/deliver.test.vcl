// Promises of deliver.vcl: what the cache says of itself.
// Each runs the whole vcl_deliver of main.vcl.

// @scope: deliver
// @suite: HIT is told in the standard header
sub test_deliver_hit {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HIT");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; hit"});
}

// @scope: deliver
// @suite: HIT-CLUSTER is told in the standard header
sub test_deliver_hit_cluster {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HIT-CLUSTER");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; hit"});
}

// @scope: deliver
// @suite: HIT-STALE is told in the standard header
sub test_deliver_stale {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HIT-STALE");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; hit; detail=stale"});
}

// @scope: deliver
// @suite: HIT-SYNTH is told in the standard header
sub test_deliver_synth {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HIT-SYNTH");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; detail=synthetic"});
}

// @scope: deliver
// @suite: ERROR is told in the standard header
sub test_deliver_error {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "ERROR");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; detail=synthetic"});
}

// @scope: deliver
// @suite: MISS is told in the standard header
sub test_deliver_miss {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "MISS");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=uri-miss"});
}

// @scope: deliver
// @suite: MISS-CLUSTER is told in the standard header
sub test_deliver_miss_cluster {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "MISS-CLUSTER");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=uri-miss"});
}

// @scope: deliver
// @suite: MISS-WAIT-CLUSTER is told in the standard header
sub test_deliver_wait {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "MISS-WAIT-CLUSTER");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=uri-miss; collapsed"});
}

// @scope: deliver
// @suite: PASS is told in the standard header
sub test_deliver_pass {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "PASS");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=bypass"});
}

// @scope: deliver
// @suite: HIT-REFRESH-CLUSTER is told in the standard header
sub test_deliver_refresh {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HIT-REFRESH-CLUSTER");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=stale"});
}

// @scope: deliver
// @suite: NONE is told in the standard header
sub test_deliver_none {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "NONE");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge""});
}

// @scope: deliver
// @suite: the caches nearer the origin stand before us, and Age stays
sub test_deliver_list {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HIT");
  set resp.http.Cache-Status = "inner; hit";
  set resp.http.Age = "3";
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {"inner; hit, "headwater-edge"; hit"});
  assert.equal(resp.http.Age, "3");
}

// @scope: deliver
// @suite: what is for purging is not for clients
sub test_deliver_keys {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HIT");
  set resp.http.Surrogate-Key = "headwater";
  set resp.http.Cache-Tag = "headwater";
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; hit"});
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
// @suite: HITPASS is told in the standard header
sub test_deliver_hitpass {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HITPASS");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=bypass"});
}
