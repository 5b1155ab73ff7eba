// Promises of recv.vcl: what a client may send, and the one request that is made of it.
// Each runs the whole vcl_recv of main.vcl.

// @scope: recv
// @suite: unknown parameters are dropped and the known ones stand in one order
sub test_query_order {
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format=json&mode=hold&utm=x&lane=2&since=-5m"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=-5m&lane=2&mode=hold&format=json"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?mode=hold&last=7&format=json&lane=2"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=7&lane=2&mode=hold&format=json"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?mode=hold&utm=x&lane=2&after=5-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=2&mode=hold"});
  assert.equal(req.http.Last-Event-ID, "5-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?_=123"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?&&&"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?AFTER=5-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?xafter=5-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?afterx=5-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lasteventid=5-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?xlastEventId=5-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventIds=5-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?Since=-5m&xsince=-5m&sinces=-5m"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?Last=5&xlast=5&lasts=5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?Format=json&xformat=json&formats=json"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?limit=5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?before=5-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?event=x&key=y"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
}

// @scope: recv
// @suite: the first of several of one name wins, also when it is empty
sub test_query_first_wins {
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=1-0&after=2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "1-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after&after=2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=&after=2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=1-0&lastEventId=2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "1-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId&lastEventId=2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=-1m&since=-2m"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=-1m"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since&since=-2m"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=1&last=2"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=1"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=&last=2"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format=json&format=raw"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?format=json"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format&format=json"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lane=1&lane=2"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=1"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?mode=hold&mode=stream"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?mode=hold"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?mode=stream&mode=hold"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
}

// @scope: recv
// @suite: a parameter without a value is as if it were not there
sub test_query_empty {
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=&after=&since=&last=&lane=&mode=&format="};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId&after&since&last&lane&mode&format"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?=&=5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
}

// @scope: recv
// @suite: a cursor of the query moves into the header, and every other text is one and the same key
sub test_query_after {
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=1795278400710-0.1795278420000"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "1795278400710-0.1795278420000");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=1-0_2-0_3-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "1-0_2-0_3-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=0-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "0-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=abc"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=1%2D0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=1-0%0d%0aX:1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=1-0;lane=3"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=1-0,2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=+1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after==1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=1-0?x=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after='1'"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=unknown"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=malformed"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?after=11111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
}

// @scope: recv
// @suite: so does the one that clients without the header send as lastEventId
sub test_query_last_event_id {
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=1795278400710-0.1795278420000"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "1795278400710-0.1795278420000");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=1-0_2-0_3-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "1-0_2-0_3-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=0-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "0-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=abc"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=1%2D0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=1-0%0d%0aX:1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=1-0;lane=3"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=1-0,2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=+1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId==1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=1-0?x=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId='1'"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=unknown"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=malformed"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lastEventId=11111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
}

// @scope: recv
// @suite: where a stream starts: the header, lastEventId, after, since, last; the lower ones are dropped
sub test_start_order {
  set req.http.Last-Event-ID = {"3-0"};
  set req.url = {"/channels/a?last=5&since=-5m&after=1-0&lastEventId=2-0&lane=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=1"});
  assert.equal(req.http.Last-Event-ID, "3-0");
  set req.http.Last-Event-ID = {""};
  set req.url = {"/channels/a?last=5&since=-5m&after=1-0&lastEventId=2-0&lane=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=1"});
  assert.equal(req.http.Last-Event-ID, "2-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=5&since=-5m&after=1-0&lastEventId=2-0&lane=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=1"});
  assert.equal(req.http.Last-Event-ID, "2-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=5&since=-5m&after=1-0&lastEventId=&lane=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=1"});
  assert.equal(req.http.Last-Event-ID, "1-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=5&since=-5m&after=1-0&lane=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=1"});
  assert.equal(req.http.Last-Event-ID, "1-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=5&since=-5m&after=&lane=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=-5m&lane=1"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=5&since=-5m&lane=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=-5m&lane=1"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=5&since=&lane=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=5&lane=1"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=5&lane=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=5&lane=1"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?lane=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=1"});
  assert.is_notset(req.http.Last-Event-ID);
}

// @scope: recv
// @suite: one that cannot be read decides too
sub test_start_order_malformed {
  set req.http.Last-Event-ID = {"abc"};
  set req.url = {"/channels/a?last=5&since=-5m&after=1-0&lastEventId=2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=5&since=-5m&after=1-0&lastEventId=x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=5&since=-5m&after=x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "unknown");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=5&since=yester%20day!"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
}

// @scope: recv
// @suite: a time is of the letters that times have, or malformed
sub test_query_since {
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=2026-11-20T10:00:00Z"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=2026-11-20T10:00:00Z"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=2026-11-20T10:00:00.5%2B01:00"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=2026-11-20T10:00:00.5%2B01:00"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=2026-11-20t10%3A00%3A00+01:00"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=2026-11-20t10%3A00%3A00+01:00"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=1795278400"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=1795278400"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=1795278400.25"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=1795278400.25"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=-5m"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=-5m"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=-1.5h"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=-1.5h"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=x"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since==1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=-5m;"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=-5m,"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=5_m"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since='1'"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=1/2"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?since=(1)"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?since=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
}

// @scope: recv
// @suite: a number of events is four digits at most, or malformed
sub test_query_last {
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=1"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=0"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=1000"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=1000"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=9999"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=9999"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=10000"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=-1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=1%30"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=1.5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last==1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?last=+1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?last=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
}

// @scope: recv
// @suite: the default format is not said, and what is no format is malformed
sub test_query_format {
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format=json"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?format=json"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format=raw"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format=JSON"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?format=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format=jsonl"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?format=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format=xjson"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?format=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format=raw2"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?format=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format=json%20"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?format=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format==json"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?format=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format=text"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?format=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a?format=json&after=1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?format=json"});
  assert.equal(req.http.Last-Event-ID, "1-0");
}

// @scope: recv
// @suite: a lane is two digits or malformed
sub test_query_lane {
  set req.url = {"/channels/a?lane=0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=0"});
  set req.url = {"/channels/a?lane=63"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=63"});
  set req.url = {"/channels/a?lane=100"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=malformed"});
  set req.url = {"/channels/a?lane=-1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=malformed"});
  set req.url = {"/channels/a?lane=x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=malformed"});
  set req.url = {"/channels/a?lane=1%30"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=malformed"});
  set req.url = {"/channels/a?lane=1.5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=malformed"});
  set req.url = {"/channels/a?lane==1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=malformed"});
}

// @scope: recv
// @suite: the default mode is not said, a short word is left to the origin, the rest is malformed
sub test_query_mode {
  set req.url = {"/channels/a?mode=stream"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  set req.url = {"/channels/a?mode=hold"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?mode=hold"});
  set req.url = {"/channels/a?mode=other"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?mode=other"});
  set req.url = {"/channels/a?mode=Hold"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?mode=malformed"});
  set req.url = {"/channels/a?mode=hold%20"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?mode=malformed"});
  set req.url = {"/channels/a?mode=abcdefghijklmnop"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?mode=abcdefghijklmnop"});
  set req.url = {"/channels/a?mode=abcdefghijklmnopq"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?mode=malformed"});
  set req.url = {"/channels/a?mode==hold"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?mode=malformed"});
}

// @scope: recv
// @suite: a very long query of nonsense leaves nothing
sub test_query_long {
  set req.url = {"/channels/a?x0=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x1=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x2=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x3=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x4=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x5=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x6=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x7=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x8=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x9=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x10=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x11=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x12=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x13=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x14=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x15=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x16=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x17=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x18=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x19=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x20=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x21=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x22=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x23=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x24=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x25=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x26=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x27=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x28=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x29=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x30=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x31=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x32=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x33=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x34=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x35=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x36=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x37=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x38=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x39=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x40=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x41=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x42=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x43=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x44=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x45=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x46=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x47=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x48=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x49=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x50=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x51=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x52=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x53=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x54=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x55=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x56=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x57=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x58=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy&x59=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
}

// @scope: recv
// @suite: history has a beginning, an end, a time, a number and a limit, in one order
sub test_history_query {
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?limit=10&last=5&since=-5m&before=9-0&after=1-0&lane=3&mode=hold&format=json"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?after=1-0&before=9-0&since=-5m&last=5&limit=10"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?limit=10&after=1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?after=1-0&limit=10"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?last=5&before=9-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?before=9-0&last=5"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?lastEventId=1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history"});
  assert.is_notset(req.http.Last-Event-ID);
  set req.http.Last-Event-ID = {"5-0"};
  set req.url = {"/channels/a/history?after=1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?after=1-0"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?limit=10000"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?limit=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?limit=-1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?limit=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?limit=&limit=5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?limit==5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?limit=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?limit=1000"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?limit=1000"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?after=x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?after=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?after=1%2D0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?after=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?before=x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?before=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?before=1-0_2-0.5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?before=1-0_2-0.5"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?before==1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?before=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?before&before=1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?xbefore=1-0&befores=1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?before=1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?before=1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?before=11111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?before=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?after=11111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?after=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?since=!"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?since=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?last=x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?last=malformed"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/history?after=&before=&since=&last=&limit="};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history"});
  assert.is_notset(req.http.Last-Event-ID);
}

// @scope: recv
// @suite: state has nothing of all this
sub test_state_query {
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/a/state?x=1&limit=5&after=1-0&before=2-0&since=-5m&last=3&lastEventId=1-0&format=json&lane=1&mode=hold"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/state"});
  assert.is_notset(req.http.Last-Event-ID);
  set req.http.Last-Event-ID = {"5-0"};
  set req.url = {"/channels/a/state"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/state"});
  assert.is_notset(req.http.Last-Event-ID);
}

// @scope: recv
// @suite: a channel may be called like a page of another
sub test_page_names {
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/state?last=5&limit=5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/state?last=5"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/history?after=1-0&before=2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/history"});
  assert.equal(req.http.Last-Event-ID, "1-0");
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/history/state?last=5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/history/state"});
  assert.is_notset(req.http.Last-Event-ID);
  unset req.http.Last-Event-ID;
  set req.url = {"/channels/state/history?last=5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/state/history?last=5"});
  assert.is_notset(req.http.Last-Event-ID);
}

// @scope: recv
// @suite: an escaped comma is a comma, in either case, in the path alone
sub test_comma {
  set req.url = {"/channels/a%2Cb%2cc?last=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a,b,c?last=1"});
  set req.url = {"/channels/a%2Cb?mode=x%2C"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a,b?mode=malformed"});
  set req.url = {"/other/a%2Cb"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/other/a%2Cb"});
}

// @scope: recv
// @suite: the mark follows the path, whatever the client says it is
sub test_mark {
  set req.url = {"/channels/a"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Path, "stream");
  set req.url = {"/channels/0"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Path, "stream");
  set req.url = {"/channels/a.b_c~d-e"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Path, "stream");
  set req.url = {"/channels/a,b,c,d,e,f,g,h"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Path, "stream");
  set req.url = {"/channels/a%2Cb"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Path, "stream");
  set req.url = {"/channels/a/history"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Path, "history");
  set req.url = {"/channels/a/state"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Path, "history");
  set req.url = {"/channels/a,b,c,d,e,f,g,h,i"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/channels/"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/channels/.a"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/channels/a,"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/channels/,a"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/channels/a,,b"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/channels/a/"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/channels/a/b"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/channels/a/history/x"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/channels/a,b/history"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/channels/%61"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/Channels/a"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/x/channels/a"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/channels/a%0d"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/ws"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
  set req.url = {"/x/channels/a/history"};
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Path);
}

// @scope: recv
// @suite: POST is passed as it came
sub test_post {
  set req.method = "POST";
  set req.url = "/channels/a?event=price&key=eur";
  set req.http.Cookie = "a=1";
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.state(pass);
  assert.equal(req.url, "/channels/a?event=price&key=eur");
  assert.equal(req.http.Cookie, "a=1");
  assert.is_notset(req.http.Headwater-Path);
}

// @scope: recv
// @suite: DELETE is passed as it came
sub test_delete {
  set req.method = "DELETE";
  set req.url = "/channels/a?event=price&key=eur";
  set req.http.Cookie = "a=1";
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.state(pass);
  assert.equal(req.url, "/channels/a?event=price&key=eur");
  assert.equal(req.http.Cookie, "a=1");
  assert.is_notset(req.http.Headwater-Path);
}

// @scope: recv
// @suite: OPTIONS is passed as it came
sub test_options {
  set req.method = "OPTIONS";
  set req.url = "/channels/a?event=price&key=eur";
  set req.http.Cookie = "a=1";
  set req.http.Headwater-Path = "stream";
  testing.call_subroutine("vcl_recv");
  assert.state(pass);
  assert.equal(req.url, "/channels/a?event=price&key=eur");
  assert.equal(req.http.Cookie, "a=1");
  assert.is_notset(req.http.Headwater-Path);
}

// @scope: recv
// @suite: an escaped comma of a publish is not ours to change
sub test_post_comma {
  set req.method = "POST";
  set req.url = {"/channels/a%2Cb"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a%2Cb"});
}

// @scope: recv
// @suite: HEAD is normalised like GET
sub test_head {
  set req.method = "HEAD";
  set req.url = "/channels/a?x=1&after=1-0";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Path, "stream");
  assert.equal(req.url, "/channels/a");
  assert.equal(req.http.Last-Event-ID, "1-0");
}

// @scope: recv
// @suite: other paths of the service are left alone
sub test_foreign {
  set req.url = "/app?b=2&a=1";
  set req.http.Cookie = "a=1";
  set req.http.Range = "bytes=0-1";
  set req.http.Accept-Encoding = "gzip";
  set req.http.Last-Event-ID = "abc";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.url, "/app?b=2&a=1");
  assert.equal(req.http.Cookie, "a=1");
  assert.equal(req.http.Range, "bytes=0-1");
  assert.equal(req.http.Accept-Encoding, "gzip");
  assert.equal(req.http.Last-Event-ID, "abc");
}

// @scope: recv
// @suite: /ws without an Upgrade is an ordinary request, and tells the host that was asked for
sub test_ws {
  set req.url = "/ws?x=1";
  set req.http.Host = "live.example.com";
  set req.http.X-Forwarded-Host = "forged.example";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.url, "/ws?x=1");
  assert.equal(req.http.X-Forwarded-Host, "live.example.com");
  set req.url = "/app";
  set req.http.X-Forwarded-Host = "of the service itself";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.X-Forwarded-Host, "of the service itself");
}

// @scope: recv
// @suite: nothing of one client is left in the request of a crowd
sub test_headers {
  set req.url = "/channels/a";
  set req.http.Cookie = "no-cache";
  set req.http.Range = "no-cache";
  set req.http.If-Range = "no-cache";
  set req.http.If-None-Match = "no-cache";
  set req.http.If-Modified-Since = "no-cache";
  set req.http.Accept-Encoding = "no-cache";
  set req.http.Cache-Control = "no-cache";
  set req.http.Pragma = "no-cache";
  set req.http.Accept = "text/event-stream, */*;q=0.1";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Range);
  assert.is_notset(req.http.If-Range);
  assert.is_notset(req.http.If-None-Match);
  assert.is_notset(req.http.If-Modified-Since);
  assert.is_notset(req.http.Accept-Encoding);
  assert.is_notset(req.http.Cache-Control);
  assert.is_notset(req.http.Pragma);
  assert.equal(req.http.Accept, "text/event-stream");
  assert.state(lookup);
}

// @scope: recv
// @suite: history is asked for without cookies or a cursor header
sub test_history_headers {
  set req.url = "/channels/a/history";
  set req.http.Cookie = "no-cache";
  set req.http.Range = "no-cache";
  set req.http.If-Range = "no-cache";
  set req.http.If-None-Match = "no-cache";
  set req.http.If-Modified-Since = "no-cache";
  set req.http.Accept-Encoding = "no-cache";
  set req.http.Cache-Control = "no-cache";
  set req.http.Pragma = "no-cache";
  set req.http.Accept = "application/json";
  set req.http.Last-Event-ID = "1-0";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Range);
  assert.is_notset(req.http.If-Range);
  assert.is_notset(req.http.If-None-Match);
  assert.is_notset(req.http.If-Modified-Since);
  assert.is_notset(req.http.Accept-Encoding);
  assert.is_notset(req.http.Cache-Control);
  assert.is_notset(req.http.Pragma);
  assert.is_notset(req.http.Last-Event-ID);
  assert.equal(req.http.Accept, "application/json");
}

// @scope: recv
// @suite: a cursor of ours is kept as it is
sub test_lei_kept {
  set req.url = "/channels/a";
  set req.http.Last-Event-ID = {"1795278400710-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"1795278400710-0"});
  set req.http.Last-Event-ID = {"1-0.1795278420000"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"1-0.1795278420000"});
  set req.http.Last-Event-ID = {"1-0_2-0.5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"1-0_2-0.5"});
  set req.http.Last-Event-ID = {"0-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"0-0"});
  set req.http.Last-Event-ID = {"1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"});
}

// @scope: recv
// @suite: every foreign id is one and the same key
sub test_lei_foreign {
  set req.url = "/channels/a";
  set req.http.Last-Event-ID = {"11111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"abc"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"1-0x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"1-0%0d%0aX: 1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"%31-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"1-0\r\n"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"'1-0'"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"say "x""};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"1-0, 2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"1-0,2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"1-0;2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"é-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"１-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"1 - 0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"<script>"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"urn:uuid:4ea28506"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"malformed"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
  set req.http.Last-Event-ID = {"unknown"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, {"unknown"});
}

// @scope: recv
// @suite: spaces in or about an id make it foreign or are trimmed, never a key of their own
sub test_lei_spaces {
  set req.url = "/channels/a";
  set req.http.Last-Event-ID = " 1-0 ";
  testing.call_subroutine("vcl_recv");
  assert.match(req.http.Last-Event-ID, "^(unknown|1-0)$");
}

// @scope: recv
// @suite: an empty id is no id
sub test_lei_empty {
  set req.url = "/channels/a?lane=1";
  set req.http.Last-Event-ID = "";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Last-Event-ID);
  assert.equal(req.url, "/channels/a?lane=1");
}

// @scope: recv
// @suite: two ids are one foreign id
sub test_lei_two {
  set req.url = "/channels/a";
  set req.http.Last-Event-ID = "1-0";
  add req.http.Last-Event-ID = "2-0";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, "unknown");
}

// @scope: recv
// @suite: with an id the cursor of the query is dropped, and the rest stays
sub test_lei_wins {
  set req.http.Last-Event-ID = "9-0";
  set req.url = {"/channels/a?after=1-0&lane=2&mode=hold"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=2&mode=hold"});
  assert.equal(req.http.Last-Event-ID, "9-0");
  set req.url = {"/channels/a?after=x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  assert.equal(req.http.Last-Event-ID, "9-0");
}

// @scope: recv
// @suite: a foreign id too stands for the cursor of the query
sub test_lei_unknown_wins {
  set req.url = "/channels/a?after=1-0";
  set req.http.Last-Event-ID = "abc";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Last-Event-ID, "unknown");
  assert.equal(req.url, "/channels/a");
}

// @scope: recv
// @suite: one lane is none
sub test_lanes_off {
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/a");
}

// @scope: recv
// @suite: with lanes every client has one, and keeps it
sub test_lanes {
  declare local var.first STRING;
  testing.table_set(headwater, "lanes", "4");
  set req.url = "/channels/a?format=json&mode=hold&last=1";
  testing.call_subroutine("vcl_recv");
  assert.match(req.url, "^/channels/a.last=1&lane=[0-3]&mode=hold&format=json$");
  set var.first = req.url;
  set req.url = "/channels/a?mode=hold&last=1&format=json";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, var.first);
}

// @scope: recv
// @suite: a lane that was asked for is not replaced
sub test_lanes_asked {
  testing.table_set(headwater, "lanes", "4");
  set req.url = "/channels/a?lane=7";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/a?lane=7");
  set req.url = "/channels/a?lane=x";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/a?lane=malformed");
}

// @scope: recv
// @suite: a lane number never has more than two digits, and history has none
sub test_lanes_max {
  testing.table_set(headwater, "lanes", "999999");
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  assert.match(req.url, "^/channels/a.lane=([0-9]|[1-5][0-9]|6[0-3])$");
  set req.url = "/channels/a/history";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/a/history");
}

// @scope: recv
// @suite: a setting that is no number is no lanes
sub test_lanes_bad {
  testing.table_set(headwater, "lanes", "many");
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/a");
}

// @scope: recv
// @suite: a credential is sent on, and finds and awaits no object
sub test_authorization {
  set req.url = "/channels/a";
  set req.http.Authorization = "Bearer x";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Authorization, "Bearer x");
  assert.true(req.hash_always_miss);
  assert.true(req.hash_ignore_busy);
}

// @scope: recv
// @suite: a crowd finds and awaits objects
sub test_no_authorization {
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  assert.false(req.hash_always_miss);
  assert.false(req.hash_ignore_busy);
}

// @scope: recv
// @suite: a client cannot ask for the answer to a failure
sub test_shed_forged {
  set req.url = "/channels/a";
  set req.http.Headwater-Shed = "edge";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Shed);
}
