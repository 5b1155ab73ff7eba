// Promises of recv.vcl: what a client may send, and the one request that is made of it.
// Each runs the whole vcl_recv of main.vcl.

// @scope: recv
// @suite: unknown parameters are dropped and the known ones stand in one order
sub test_query_order {
  set req.url = {"/channels/a?mode=hold&utm=x&lane=2&after=5-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=5-0&lane=2&mode=hold"});
  set req.url = {"/channels/a?_=123"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  set req.url = {"/channels/a?"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  set req.url = {"/channels/a?&&&"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  set req.url = {"/channels/a"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  set req.url = {"/channels/a?AFTER=5-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  set req.url = {"/channels/a?xafter=5-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  set req.url = {"/channels/a?afterx=5-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  set req.url = {"/channels/a?limit=5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  set req.url = {"/channels/a?event=x&key=y"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
}

// @scope: recv
// @suite: the first of several wins, also when it is empty
sub test_query_first_wins {
  set req.url = {"/channels/a?after=1-0&after=2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=1-0"});
  set req.url = {"/channels/a?after&after=2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  set req.url = {"/channels/a?lane=1&lane=2"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?lane=1"});
  set req.url = {"/channels/a?mode=hold&mode=stream"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?mode=hold"});
  set req.url = {"/channels/a?mode=stream&mode=hold"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
}

// @scope: recv
// @suite: a parameter without a value is as if it were not there
sub test_query_empty {
  set req.url = {"/channels/a?after=&lane=&mode="};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  set req.url = {"/channels/a?after&lane&mode"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
  set req.url = {"/channels/a?=&=5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
}

// @scope: recv
// @suite: every malformed cursor is one and the same key
sub test_query_after {
  set req.url = {"/channels/a?after=1795278400710-0.1795278420000"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=1795278400710-0.1795278420000"});
  set req.url = {"/channels/a?after=1-0_2-0_3-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=1-0_2-0_3-0"});
  set req.url = {"/channels/a?after=abc"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=malformed"});
  set req.url = {"/channels/a?after=1%2D0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=malformed"});
  set req.url = {"/channels/a?after=1-0%0d%0aX:1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=malformed"});
  set req.url = {"/channels/a?after=1-0;lane=3"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=malformed"});
  set req.url = {"/channels/a?after=1-0,2-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=malformed"});
  set req.url = {"/channels/a?after=+1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=malformed"});
  set req.url = {"/channels/a?after==1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=malformed"});
  set req.url = {"/channels/a?after=1-0?x=1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=malformed"});
  set req.url = {"/channels/a?after='1'"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=malformed"});
  set req.url = {"/channels/a?after=1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"});
  set req.url = {"/channels/a?after=11111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a?after=malformed"});
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
// @suite: history and state keep after and limit, and nothing else
sub test_history_query {
  set req.url = {"/channels/a/history?limit=10&after=1-0&lane=3&mode=hold"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?after=1-0&limit=10"});
  set req.url = {"/channels/a/history?limit=10000"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?limit=malformed"});
  set req.url = {"/channels/a/history?limit=-1"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?limit=malformed"});
  set req.url = {"/channels/a/history?limit=&limit=5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history"});
  set req.url = {"/channels/a/history?after=x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?after=malformed"});
  set req.url = {"/channels/a/history?limit=1000"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?limit=1000"});
  set req.url = {"/channels/a/state?x=1&limit=5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/state?limit=5"});
  set req.url = {"/channels/a/history?limit==5"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a/history?limit=malformed"});
}

// @scope: recv
// @suite: an escaped comma is a comma, in either case, in the path alone
sub test_comma {
  set req.url = {"/channels/a%2Cb%2cc?after=1-0"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a,b,c?after=1-0"});
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
  assert.equal(req.url, "/channels/a?after=1-0");
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
// @suite: /ws without an Upgrade is an ordinary request
sub test_ws {
  set req.url = "/ws";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
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
  set req.url = "/channels/a?after=5-0";
  set req.http.Last-Event-ID = "";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Last-Event-ID);
  assert.equal(req.url, "/channels/a?after=5-0");
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
  set req.url = {"/channels/a?after=x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, {"/channels/a"});
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
  set req.url = "/channels/a?mode=hold&after=1-0";
  testing.call_subroutine("vcl_recv");
  assert.match(req.url, "^/channels/a.after=1-0&lane=[0-3]&mode=hold$");
  set var.first = req.url;
  set req.url = "/channels/a?mode=hold&after=1-0";
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
