// More promises of deliver.vcl, which falco cannot test: its fastly_info.state cannot be set.
// Run by `tests/run vcl::`, in the same format.

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
// @suite: HITPASS is told in the standard header
sub test_deliver_hitpass {
  set req.http.Headwater-Path = "stream";
  testing.inject_variable("fastly_info.state", "HITPASS");
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Status, {""headwater-edge"; fwd=bypass"});
}
