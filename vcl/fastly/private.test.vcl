// Promises of private.vcl: whom a private channel is given to, and what is left of a token then.
// Each runs the whole vcl_recv of main.vcl. The tokens are real: HS256 under the secret below, RS256
// under keys of which only the public halves were kept. Without `exp` in its title one is good until 2100.

table tested {
  "private": "secret, prices.*",
}

table secrets {
  "jwt_hs256_secret": "test-secret-of-thirty-two-characters-and-more",
  "jwt_rs256_key": "-----BEGIN PUBLIC KEY-----%0aMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAmKaRfgToRlnlI/4LL3uL%0aSYFpLU/Xf9aJCJohaR55TMAJODNWDqOykY2KfF7m9eD6EwDuRFa0acy6UYhnyh9H%0akSmbmIIKJ3gq+ouzOVV5AkS7SNp+gTIfyfHryZChmQW+hmYTedv14e8875hKw6pg%0akBLlz2SFhA0PWK1Zyq6JbA/kgYyNQGNkQgxn2Cy5+VMxXQdiJvTqMN3w43EQV3+A%0ax1EiL6hr0yr7Mg6YazRX1RqPzpwjT/JKRQ0Wf1w32zPnNpeOsMiFcZWHMhM9r/Tn%0anCwFkjpI79YSb+cyJnLWXovCuT8Y4c+OvQOnPQjYhcTd+hT4lVBgsPcx4TmbOqUI%0aewIDAQAB%0a-----END PUBLIC KEY-----",
  "edge_auth": "edge-secret-for-tests",
}

// @scope: recv
// @suite: two readers make one request, and nothing of either is left in it
sub test_one_key {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  declare local var.url STRING;
  set req.url = "/channels/secret?mode=hold&access_token=x";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  set req.http.Cookie = "session=ann";
  set req.http.Last-Event-ID = "1-0";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.false(req.hash_always_miss);
  assert.false(req.hash_ignore_busy);
  assert.equal(req.url, {"/channels/secret?mode=hold"});
  set var.url = req.url;
  assert.is_notset(req.http.Authorization);
  assert.is_notset(req.http.Cookie);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.http.Last-Event-ID, "1-0");
  set req.url = {"/channels/secret?utm=1&mode=hold&access_token=eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiogcHVibGlzaDoqIiwic3ViIjoiYm9iIn0.cLrwd_R1SZ3B8YL8EBOFwZXfsV0X3VVI_x99rBHZW2vA5IeoOe2CJljji2VMtmfh0s-azvDz6vBMVyrChojXIYlwub7Yu6_r8BdytKtxhF_EAX0tmvqPr1Lww4ky65vAVC0ZIVvIXUprlNW01UAZmKO2sn8Gu1uPWORLQ-3V8vrelKjSoIJO6olBWmbEkFpYijHzqZt8YVGw7Xexz6kvYYy4DnlvADq1YuvQ6Io0QsLkoEPimrLeR0-aZkLj5DVj5xQKwiaos1Z-ZeHJcXAe0VNcxO019mODSlStH6WX7j-zaBu8E2a4ZUGdPFMhcdyTBuAbL38VUTPZYAH9BOML5Q"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.url, var.url);
  assert.is_notset(req.http.Authorization);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  set req.url = "/channels/secret?mode=hold";
  set req.http.Cookie = {"session=bob; headwater=eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiogcHVibGlzaDoqIiwic3ViIjoiYm9iIn0.cLrwd_R1SZ3B8YL8EBOFwZXfsV0X3VVI_x99rBHZW2vA5IeoOe2CJljji2VMtmfh0s-azvDz6vBMVyrChojXIYlwub7Yu6_r8BdytKtxhF_EAX0tmvqPr1Lww4ky65vAVC0ZIVvIXUprlNW01UAZmKO2sn8Gu1uPWORLQ-3V8vrelKjSoIJO6olBWmbEkFpYijHzqZt8YVGw7Xexz6kvYYy4DnlvADq1YuvQ6Io0QsLkoEPimrLeR0-aZkLj5DVj5xQKwiaos1Z-ZeHJcXAe0VNcxO019mODSlStH6WX7j-zaBu8E2a4ZUGdPFMhcdyTBuAbL38VUTPZYAH9BOML5Q; a=b"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.url, var.url);
  assert.is_notset(req.http.Cookie);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
}

// @scope: recv
// @suite: a credential on another path is not ours to judge
sub test_foreign {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/app";
  set req.http.Authorization = "Bearer x";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Authorization, "Bearer x");
  assert.false(req.hash_always_miss);
  assert.false(req.hash_ignore_busy);
}

// @scope: fetch
// @suite: a failure of a history is kept for a second, one on another path is not ours
sub test_fetch_other {
  set req.http.Headwater-Path = "history";
  set beresp.status = 500;
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.equal(beresp.ttl, 1s);
  unset req.http.Headwater-Path;
  unset beresp.http.Cache-Control;
  set beresp.status = 500;
  testing.call_subroutine("vcl_fetch");
  assert.is_notset(beresp.http.Cache-Control);
}

// @scope: hash
// @suite: the key of a private channel has no token in it
sub test_one_hash {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/secret";
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "edge /channels/secret";
  testing.call_subroutine("vcl_hash");
  assert.equal(req.hash, "/channels/secretlocalhost");
}

// @scope: recv
// @suite: good tokens in every form that is plain
sub test_taken {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # HS256
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # RS256
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiogcHVibGlzaDoqIiwic3ViIjoiYm9iIn0.cLrwd_R1SZ3B8YL8EBOFwZXfsV0X3VVI_x99rBHZW2vA5IeoOe2CJljji2VMtmfh0s-azvDz6vBMVyrChojXIYlwub7Yu6_r8BdytKtxhF_EAX0tmvqPr1Lww4ky65vAVC0ZIVvIXUprlNW01UAZmKO2sn8Gu1uPWORLQ-3V8vrelKjSoIJO6olBWmbEkFpYijHzqZt8YVGw7Xexz6kvYYy4DnlvADq1YuvQ6Io0QsLkoEPimrLeR0-aZkLj5DVj5xQKwiaos1Z-ZeHJcXAe0VNcxO019mODSlStH6WX7j-zaBu8E2a4ZUGdPFMhcdyTBuAbL38VUTPZYAH9BOML5Q"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # no typ
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rkh1nHfQXUYrmrUgETTCdlArr8LywkhCuVe1Ve_-efs"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # the same in the payload
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImE_Pz8-Pj5-fn4_Pz8-Pj4ifQ.u3-TSfhshHKZ9cQXyR6oVMYW6i9aa_azT2vquDuLDpU"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # the two letters of base64url that are neither letters nor digits
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6ImE_Pz8-Pj5-fn4ifQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.tN4mdD-GEdBagkcR4l5uE1J5lzgrqZmFmpssNIFzMoY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # other members and order
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJ0eXAiOiJhdCtqd3QiLCJraWQiOiJrIDEiLCJ4NXQiOiJhIiwiYWxnIjoiSFMyNTYifQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.G4NKEdUPGdqBsIKSFzuC6rLFwjPE6VnYZ8KJEqbS-lU"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # a typ in capitals
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJ0eXAiOiJhcHBsaWNhdGlvbi9BVCtKV1QiLCJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.JNaEEMn7Za5GZmmAUZdZPGEdVjeV6vyuQLPTFZwjEk0"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # spaces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyAiYWxnIiA6ICJIUzI1NiIgLCAidHlwIiA6ICJKV1QiIH0.eyAiZXhwIiA6IDQxMDI0NDQ4MDAgLCAic2NvcGUiIDogInN1YnNjcmliZTpzZWNyZXQiIH0.WQDPi2_DBBiVLFRzRIpd9B5w8IRKbTpD3977-Ovox_I"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # other claims of plain kinds, escapes in their texts
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImlhdCI6MSwibmJmIjoxNzk1Mjc4NDAwLCJuYW1lIjoiWm9cdTAwZWIiLCJmIjotMS41LCJlIjpudWxsLCJ0Ijp0cnVlLCJ1IjpmYWxzZSwibCI6WyJhIiwxXSwibSI6W10sImh0dHBzOi8veC5leGFtcGxlL3kiOiJ6In0.2P3WnSHfyFg9P7T0HEDogj0sIPXloeJYvB-KNtoh__Y"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # escaped quotes in texts that are not read
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJuIjoic2F5IFwieFwiLCBcXCBcLyBcdTAwZTkiLCJsIjpbIlwiIiwgMiAsICJiIl0sImV4cCI6NDEwMjQ0NDgwMCwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.6ZzjwGVs07z87-U4GUB6uYWpMgZ4L2AwvKGAwa1ASqg"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # letters that are not ASCII
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJab8OrIiwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.JbEuxlhQ6utUHy4D9RmN8vh7fM_rKbq2RG0PF6z5ZOk"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # among other scopes
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoib3BlbmlkICBlbWFpbCBzdWJzY3JpYmU6YSBzdWJzY3JpYmU6c2VjcmV0IHB1Ymxpc2g6YiJ9.qoVdKdwFrXNSNacznwo4TQ0rBp0_zVENBiUnfh73vH4"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # names of members as values
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJraWQiIDogImFsZyIsImFsZyI6IkhTMjU2IiwieDV0IiA6ICJ0eXAifQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.qWKnJyZ7vKNNffKZK3e8bA33GQ0VpdOJK7WEIBbWq0k"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # in the other order too
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6ImFsZyJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.hcOEhcx1UeEJzFAJ882j5A0Fv1Ht9r_WC13LPAYHt6M"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # every escape
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJuIjoiXGJcZlxuXHJcdFx1MDA0MVwveCIsImwiOlsiXGJcZlxuXHJcdFx1MDA0MVwvXFx4Il0sInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImV4cCI6NDEwMjQ0NDgwMH0.5aNXUNo2f8k7sLFMdYA49RJ9s2U7xlVOW9IuEZOr2z4"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # every kind of number and name
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJuIjoxLjVlKzEwLCJtIjoxRS01LCJsIjpbMSwwLC0xLDEwLDEuNWUrMTAsMUUtNV0sIl9hX2IjYy1kLmUvZjpnIjoxLCJhIjoxLCJ4YSI6MiwibmJmIiA6IDEgLCJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.0dqcrMxoi-KRfaU3ptrB7hKipZFulB5lhCNBW_g_dHk"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # names of claims as values, and names that only look like claims
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQiLCJzdWIiOiJleHAiLCJhIjoic3ViIiwiYiI6Im5iZiIsInhuYmYiOjQwMDAwMDAwMDAsImV4cCI6NDEwMjQ0NDgwMH0.tMTzGpd3_WJu1VJY4g0JhA3H3yxSiVLjt4ukxbbYaxA"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  testing.fixed_time(1795278400);
  # exp in a second
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTUyNzg0MDEsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.vfeEBPzHXDNiJWhyMmwh-PjyEzgllLcm7XhEL-HgQKM"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # an issuer and an audience that nobody asked for
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImlzcyI6InNvbWVvbmUiLCJhdWQiOlsic29tZXRoaW5nIl19.XG4yqgB43wzhI9KbRsa3Hi6KIHHkZIWXXRzNEEyObqw"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # a claim that is not read here, twice
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOjEsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImEiOjF9.kUdAUGPv2pwDZ93M9HmfhdsI7vpDd1cFzu0s5mMDV0w"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: RS256 with 3072 bits
sub test_rs_3072 {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater_secrets, "jwt_rs256_key", {"-----BEGIN PUBLIC KEY-----
MIIBojANBgkqhkiG9w0BAQEFAAOCAY8AMIIBigKCAYEAp0HDxFyW1CKcI/f1GpEl
nqrVko8UJ+Ef3JYEL1+90krrjYoPhLGL4CdiKLJr6VoGZVKw0hclFlCr5Kfqk40T
e/Rwp9LGhw5Ur2ruaaj3GhwGT4fwNXJoV9Juuc99tHaLJTrMygzNsIZ5wlQnXfpY
lD9zG2YiBnECJEGECbePBAPs3D/R1FHQ7hDmBBalwMrfV5+iupq820gcS8VoLH2g
xvwn1uJ+SzuWRCt9y0dKQQpQU0xlVF+pCiMRRVs8Jvo/mO1OwRO4UUBqYT3rReh+
ColTxQe/rQ5VYcqyHMLq8Ah7sXvWcH/WyqH4kLpxjEE3Jxniv6jEI9rhf98jpP50
6CXciPTbeQJ8O2dx72yLp5/3L2DNh6u83G1HO7uD2zdRNndYtvZHUbDmyRpN1YOX
b2XiUmqT7PjJnpOWlAt6o8d3z3Iu1sEVoX0MBolFOovZDFlHlmhPai0/3ssPugse
st3JVEaUAP+rdkDtInPP3TEZ+p23ufAfRS8rTdkfUmc1AgMBAAE=
-----END PUBLIC KEY-----"});
  # its own key
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.RMzKV5DukiS07oc8TXQGseZanW3ffNgcNmuF0Pz3GM1TxZXpku8_3If-4MYyaoQgZE1F6eK9VXhltirI-VciepJ2zGqM8JXzTjcgqoeCbh9tn8vtpN6aagKQi-R-50S2fdxH1d1RENo3mh78AkmwrXU0z0NbYMu5k6EBkAFhysxw-KKgrN4PpQR0N9WnydLpoKTRD_kbADhAxlQraBvdzoapM6zm93ilJDDUNzmT1O2CXYCNOEVB_MuXrIL0-s7Ut82riVGJv3RYRqfTRde8tRtHDD0VktS9GKy1bg212qynA5u2kOrHun1VwwumHSQyRy2o4IQONplt8Gl6C9F6WWX1_BRY9adkv50GD0kYdiPTkb7QrIRTO8JhWDdWv1xCKE4EjbaokAgE0yxhuULL-B17Cw7ApVdkz0p13Gxd5V77j7dx4CidDkTb3sz6sE6FRbi5XsVTv1ZSTmIZTqTi1F2A6OPEzXeDx0oHp4Pb2UnWp6U8xnrh-V46ut_F4QMd"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # another size
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.VdPaOG--Bsz8mu2k_I_ZTkKCul_DP5U49rROiuVH9GxpjH4fbYNinVdrn9DJwqPnwnRNydqkr7iAt0Jb303m1NEdpJQZKQ85vwC8qA09x6D9t2aylBSoDZAaTjbkzBjKGcjLE3vGdpGmCDAHDIyOThIMZk-fS9e_EboN1ZHV9DQDYuGxwzv7X9omlXFWSvZwBdArJtwq8s3_yUABqMCya-iCE0Ktwh0qUWaMZ6O9wGF2JY6KzM1UnIlqGMgX9SyQNYmEM-t_WBfY7_kSg3cmyDfPSYyYUG8nSxaHeGk-AlrQGldv2yyJxy2mt2gVMB1qqDXVgbYJHzVPWrhIUPBk9Q"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: RS256 with 4096 bits
sub test_rs_4096 {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater_secrets, "jwt_rs256_key", {"-----BEGIN PUBLIC KEY-----
MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEA0rfynTA3i7rnEzpLqV4Z
oGXGM2RyfFnMOr97B4+RSIy0MlL9sQ+nbSnIx5PwzOZ6U5GiQGRMP2HiosIWXP2Z
Y5yNnXRWXsXd9FojHaXzDd20w9NiTz2ROncifobI34Pb90MvTdCU04SKqNB1AC1e
e2TXyO5vOMHtZfNkfMmOMCncEt8V2CF3OgWSZszm9yDKiWIzsFREOwz4aMrja/fx
HHhDHg/eDjP+iyUVs9Ybc6V65ZD/qkf+7eXiOL2he10R1e4eAeAY93WIhasGOUXL
dqHsYMHAJr5xtdCdFFvViGFrLTlw8vqRfOxCc/0PVq/oL4PKB7ZVAUF00vlgCcov
M1NQSujkYQBakbqqhtJE5/HaD0JHMdGEwmzpX9F1JJAPJUH3FqSXMuE/rCDYmn7I
3SHtnkjptmK71iBDwowlxz6BLzzderAS5OmraEP/eYx17D4qobB+xbY/qt+GjGwt
FmBn/7dJHonjbOGkvadwwtAXiR0ppanXlgW92brmHLNs+F270+EyjBk7GhhPf5Qb
g/5Le+gu9SzrSQjaEKcS/Ww05KQ6mIi8zknvrOq6Esea8vNvxaM7zbv4AQGpTUj2
qXh35oXzk7OIlbQYUZuQnQhx6HGGi/4YtgL+fJ1d7yDiFIzN12K70Yk44Mfh1ww1
3+bhqjZzZLiwtUQclUPm04UCAwEAAQ==
-----END PUBLIC KEY-----"});
  # its own key
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.P13a2-LdokxGnPXdlkvu_lko9tQ1aIzBVfvIyhfmD4V2xLdZPR1P0vqnsFQk29jxrp5xHSKLEFPczgz1FWXzPAU6hTwvRi6MwMeyz5k5LGdYe2ta-tHzFsgVLT5m6JdvpEu-GF1xtP4a_tUgHp3kZks0gxE0inqiwJKx4y1MAPhbniBQmwRNFZYQoxPsgLI_udxPTZs8nkuQb1qAYuPrh6clUkdqTTZNGcNWecM5cw7avTpiyaAnUksAQsbtf5QNO5Bfg2EtdnRJJHQpbEt_fmi3tWnU-OTgX3XUAvFpZhIubBmS7xqB4tF-mOTG_3iHD96JJTRvjXazbnIoPJYptOaZZgZwhCKTqoMyc3s_vKIGWfEFkE3fIazkOgBCNjlqyiqL_A6reYqlrE0DPrwr7JzjakMd4r_vOuTM7ODGLfEVgVI_yxtgt5z6yYksTf6CBIa7vqVaRuA3F92vUBlGbJAxohKq1PwWkMujfJOZnflV2pou14X5OrPuP1f4X7b_Bj8P3L_21LHZ7-zICZDqfMaUeFvJNTpenWRgpJY1ptQyCVyIsq9D2Ho-aFBlugiSrG6yC0QPe5WzuWL-pk6qPqYermI9jjOtAeMj5p5jXFSALxl5b4hcBLXMVXS7dWlWKwukX9OE-YbBdQSwrsDSOahUfNaqJxb7U1dxdboqkDk"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # another size
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.VdPaOG--Bsz8mu2k_I_ZTkKCul_DP5U49rROiuVH9GxpjH4fbYNinVdrn9DJwqPnwnRNydqkr7iAt0Jb303m1NEdpJQZKQ85vwC8qA09x6D9t2aylBSoDZAaTjbkzBjKGcjLE3vGdpGmCDAHDIyOThIMZk-fS9e_EboN1ZHV9DQDYuGxwzv7X9omlXFWSvZwBdArJtwq8s3_yUABqMCya-iCE0Ktwh0qUWaMZ6O9wGF2JY6KzM1UnIlqGMgX9SyQNYmEM-t_WBfY7_kSg3cmyDfPSYyYUG8nSxaHeGk-AlrQGldv2yyJxy2mt2gVMB1qqDXVgbYJHzVPWrhIUPBk9Q"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: every last letter of a signature of 2048 bits
sub test_rs_tails_2048 {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # ends in A
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6MX0.dvsPW8lOppJceUqq0qHzxF5Nl0yW-TfHw1-e9eEBWoeMZB6oA5OLePykRIx9vLRlMgVYy2th3dRyc1idBaui1qmrI1UpXwEsU3096aOXVlp5XvvwkAJD_bFz6D_uHTxr4nBTs8g1gtgOMNpNNFNawWqJqdBo0HW5wbMtU6LyhR2U-3wcHzO-7IesDb4uUXyJD2-VdyAfNIe0J_Q8Bt2zDB81JGJIh127MPo9zZunMuoHnVpkwr1Fbm_bV2QIonRlxL9BnCx-SLojZ8w-FTIK113GjzmYqjrpFCNuotLhnPQwujwAV85lEaQONeVFrMvptqAhSpfLDVrO0XFgdHWnzA"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in Q
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6NH0.OCiiY-BOOvsA_Yh4Ce8uL5ijd7ARPT3lRD0QwOwlEBOYZ1Djk2ETRioHhGBpaQyUzAl0W7UDcWn6kID6O1KGH9oFWMCrPVK8YXwWy8JF2YxKKjGyvudTDP1UCVmpwZm3UlXndFzycXptgVtqgs769olJcRX5wq_2wNGQUxsj9f-n8EdATv33GwSBJxlOrtErBSoHwcX-VyRss4KNFq0fFBH23gQL_zd1zybl3qRc5xfXzkdw3kXkZt7nN9Bz-yTYKYBHo_eMkjf3zTHmy78p0t7Ylbp8LeyvM3_ELc9HUcV1p38TdoNqUxuxp1oFLQH50O93B5qhIZE22lE9zfr_qQ"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in g
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6M30.crc45lVI4zvhwMZkRrLd1VR7GBEk9l6wH2weBwDn43OvOnkvsFkiaBqiHp2ehef6ESaZ7HbcZa9bMu6-UokQPiIzvlSbRhOKhVzwJ6uhqBfPTkhojM58M80J2279MS3-TO3lnIQarg4ojSD5sVXISAKRoEZTjS3eLoK_foZgmQ6dpopCXxe5pGT0RZzK_ZOpffE3JFRqFJWIomzRetM91EtIVXyQLUAOryF3pJwk1eyNxEtm9DP7FhZC5vAK1H4ElFS-wqgqcrQgiB1tY2Xs4yQ2uqG3wYvR8djxMI7uTMbk1ierrbeBUPDOq6V0E4UUNAcylG47IxnChIEThO7PMg"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in w
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6MH0.EK_aime8lKe00h4E-xiel9rBc9BgOsGWQWOxCxue-bOsAdEs3fg9PFmdTsp8mQoyBbyNucUf1jRUDmUW770QOGwdeWsf8_VMMjlPGfudFB3MOlLkikDDNmDRLrxGZlvN6RTgvHX3jYIGt-f64DVZZ3pjb8_chOD2jHimA0a3LOvcQt79zfUE7iMdGTEJB-bmSsK4tP8GModZb6tXGvZMRIVcITBKPbiIbJlxefwzf93WRtqVEvhvi6MyWy48SCpsEnxWSx62Ej1a8L6usMB1aGmp1DPnZ54FFvNqUsTgX1Kcfa8uM7fDrl0LsiTua1rVtgi0b3AD4PMUdx3P3B1Q5w"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: every last letter of a signature of 4096 bits
sub test_rs_tails_4096 {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater_secrets, "jwt_rs256_key", {"-----BEGIN PUBLIC KEY-----
MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEA0rfynTA3i7rnEzpLqV4Z
oGXGM2RyfFnMOr97B4+RSIy0MlL9sQ+nbSnIx5PwzOZ6U5GiQGRMP2HiosIWXP2Z
Y5yNnXRWXsXd9FojHaXzDd20w9NiTz2ROncifobI34Pb90MvTdCU04SKqNB1AC1e
e2TXyO5vOMHtZfNkfMmOMCncEt8V2CF3OgWSZszm9yDKiWIzsFREOwz4aMrja/fx
HHhDHg/eDjP+iyUVs9Ybc6V65ZD/qkf+7eXiOL2he10R1e4eAeAY93WIhasGOUXL
dqHsYMHAJr5xtdCdFFvViGFrLTlw8vqRfOxCc/0PVq/oL4PKB7ZVAUF00vlgCcov
M1NQSujkYQBakbqqhtJE5/HaD0JHMdGEwmzpX9F1JJAPJUH3FqSXMuE/rCDYmn7I
3SHtnkjptmK71iBDwowlxz6BLzzderAS5OmraEP/eYx17D4qobB+xbY/qt+GjGwt
FmBn/7dJHonjbOGkvadwwtAXiR0ppanXlgW92brmHLNs+F270+EyjBk7GhhPf5Qb
g/5Le+gu9SzrSQjaEKcS/Ww05KQ6mIi8zknvrOq6Esea8vNvxaM7zbv4AQGpTUj2
qXh35oXzk7OIlbQYUZuQnQhx6HGGi/4YtgL+fJ1d7yDiFIzN12K70Yk44Mfh1ww1
3+bhqjZzZLiwtUQclUPm04UCAwEAAQ==
-----END PUBLIC KEY-----"});
  # ends in A
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6MTd9.Yzv5YgUpQaa_NdbQGJsMCtr29VjyvZGW4lQnFTOT2DuOrrqdYr-DAj8ehM9SUKcuYA9Rpw9tlDLpP9__bivX6acvu8OdZ078PJcuBBvPzGqw0VXu1z8G6WPQRQLGjv3VBh4SGNxbCakl5NCnB4i3msfOwBBIeC7B-JV_MscbFOVe3KZ3P1eHHITpVO22ae35DHVti_a_7kyZkWkh-n2utU40Nb3nbXxQfNPTOxRtWrHT_kUgKZRrDhXkeE-lpypJupy3QLVwnWYDVxNgoD0J5BeB7adZ0iOaVvVdfEXE0C6e4sCgbmCZ6Yfsq-W4w7z5no65YTtMZ7fDomlgklg0rK9N2Dze_azo86JLZbTwfmId___8UwCO9LQZSOk24kTofzUWQaovdXx930mZ3QDu14lE9ybeHnNGUdFIT-vKwUS-8uLXIeg4Xw4Tmf6I2inZdo61bbn8YU2IEsP36i8ef8VxWKS0UQkkayW_onZzPgJkmBjpgyYHEGsFCKc0XHuZ-Vu0qMXnVvgvemVERd4Hsm3bDQYgW2Dal4eiKulCi-LYu8FBIkME81mxDpNchwSTThyecl66i7IARbSMeY7sFw7bZpO3__HO5ypijU2GlZ1DGqXQ2X9Rw6_nOPVQSr-TlX1fEub6jAXUp925zIxPqdwsygt6KIuBk1XtAkBfjcA"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in E
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6Mjd9.MUtJhKBp8AO4EDa7jrsBt2bxHtXGN8Fbdx_QnFxRSsd8e-0OrEng07fiwKRrFMkug32ELpHKeo0Zjt-AJZIIuf9-SnfKU4v1Vcukh6JZqP1Z-ssahzlLvBDr1M37ee7PD30vgDHmefD72ZaHofR543nvBAIcclFXQXXC7W3R1bvsLeMIexeIUslPbGNuZN6R4aEbT0CATTfXT0u73StsV1rzzXIiHCgQWn4juUfkhC7Rv6CnGT7VRP4SUbyhKuwwPqUB8Rc5qhzKpup2LQU8TiincAZMhT108HchBYYi91nltufmuvtDfzgO5umU6EcGeJEcTtI7wxqZdaj_RxmUSPJ5fIierZt22jSB7IisYP8Yo6qx5c6KHQzKZKRUPUHRf-Nk8h5F41EBwlbH4GvQvtCJoN-U7IDtwUBAo1aXi_jrJkcYO8vdtNYM3k1tO8g1VfN0AozUHmF_00W3UZLGs_Mpc0APJ55VISgvPJRs-G-4hPsl814r4jIE13T4nV5iZqauYJ0sfyNequJUZxUzfong959dW2bJZH8TUcfjstYvTrxYPMK7ZPYF8Jvt6ScRg5ZpR4UmfV1e_48TJzf2gAOagJkAzJhEqZDc8SxWkxX7A0y_mCRTho1iTXIYBFmjZxhWJxMME6BUevUEKaZYro1kzl36dsr_an2EDPADTUE"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in I
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6MTZ9.t8i7rsddxrT1XpG8t4VhkWAoEY-ZC34RW4uJtims9g5ijh-J7JS3jSTQoeRRmZjbCyGt4cbLRpWZftQLj4khbuCl5dbWsj6yGSetHmJ2CqP8DGIeu_UOK_44ICso_kGWK6gMHY7NkmsejhlczLGnhPpe_fIloHaIzOzv4MRLMyFDwDqVvbdWbsiA_aSuP0AdNj0s7RKn17JzqWIIgdYN6CebZwZ3qemePdNxRcuAOAcdq5EWBlmS_6W2-c9_x-7xpT_LeNAi8wdoVhflpKw50DE1fVxr_RPD1YUiVTr6000QAr5ssfyN0kW1gb1PdPPVFq3E0aBk-GqP4H303WZ-4t3w2JkkGwiTYysIh0rSlf5tuioGYjJmSlMr5tHMdy9MJdBz0_iWV2Y1NGtI1ptmDyJKfI6RDwRrwZFPCSpAuTl6TtXW-M3MeZx-LqRUq_vonheFDvGnswQrin0dnjDjY0NE0rUwJ1hActCi73PTaoYZ_abwgNJSOx9hcDCHlyIjAbZrvQQlT-8EkKl8CsmE543spyws6Kk2RVWadqZa-1IY1tigk8AAdg2FdyluuMoFGtiyM9Gd5wNrCmwvXi1J5Mm8wx8QRu2ZRE1z1SLLIMU3xtyUZCQSYRPb4O2XfqhSZChcaaIw_-WmpzBNG43y6ZjtQo_YArm_PoFXLMc4W4I"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in M
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6MX0.Fyfw0NFschudKc5NXq4Rj6Wn0WhTFETVGrIiDvSuvB3YtmRrCK2UO-qj-8Y-4F4EajEaF0WVhdw5gQ5b8X_dWW1QZDQITk9_b9p8xC8nX4ZKV5UOutQq_7wK00G47oumAXK2xcmcA8enYo7zBWSfYZ4n6EnaKtn4jtEw4bleaSUIJSq4Lh9XtqyhL6ubVBFAySEYt8gNCClobxBRwMNXA4hgC89N5zcDAxkTA6U_uiPFx5z60Oe0y05O0pfz10e5xIRCmHjJtgPQG8bVn9gK_d5WE2f0x0FmeXCQJ0Er2tmGlbx16E14ALI_P4rbWuBcuXIpKBSxYHjI_5g6kxCwnmKpgOh5VntirdTMT4Tjv9rmFa7_A0kVHmj1aOB2voHi2Qv2FftR6RbVSHDcv1H7D-Wl3DmYUEgOqSGJx3Ek4ZIpS4gN7EkIxCG9jby1PztZ3lbBKGttzIAbhL1tzFoNAsVf2P5_1dYWFV8xk40utf5WW5HRnjY_xISs4gteB0FmJMY87wLWI2P0xesRt9EycvCBtnYOGt4SkSh4Df6F1sxOEDCE2Y5G0NHxnJRGR7C9hU1VHeb4OOg07-saGlw1mS8P8mmegaHmXnJjE3Di3g-l1KcEXrrZPoTrA2cvdx131hmljY_AAFozNhIVWY-8wapzaJotuE3_xNxnxuo5gtM"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in Q
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6N30.z2ekHJcc42KRqE0D8LOlTl00Mo3ZdrWeDfBuK3tE0f86wzvGvv700LKGvTtisoziLK_tRBvqtKab2GXJA8BsHGbE2-wVBu8ZbBP7348OSxm7bjQwo5AvekUyEyfq5W3Uy2uM6-tbgvFT69pcpd4FeBS-OgM71y87O4H3cjwxtTwsLHRnJuamKhVGsSIyHb2mJnhfFDgo82GGaCv8OB6NyvEhiDKfCxQMxhN_wOAH8W-Dczhi8qFeuzTP-9yLIbjoByElZ5RW-L3NnS5EJ1dXgGaJFJ13swKCU70Ms-szBUiPc5KeZTsH4sY62EO3YczSYYfnblIzXIVw4mgo2FwIqvh4bFPTuNahkluxQ0CidgENKcOWbW-vxrVHCYrmDh96r-bqb45lcCicVEoyL37U0CXBZm-QKzt2IWXq0IsUbEHN8HVfZvS642eKLu3AgTY9gSJXszg6w5EpZRQcfT36V6wWISzpBkzoMAxPuktCD41gunIi0ypaKhgFhm0qkyr1DCzfjJKcez0GiTH3ImQiGmcI0rsmOQ0r2eF62pJLvzXa1Y-POz6oSXEnG9yhI_BbXBM5ULoNutUfDRHG-x2QDmxv3jwqIF7vJbKjk_z2u9hZhCXk8H7MpYdCvaHPoiix4pZoKEBKDnUfBtvtGXTTjiBF34AQTMsdLlDb1Sn3z-Q"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in U
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6MTh9.MtAOjm60F4sHq_UA5KtTQur2B8idXzvVmVDeolAHKBdak-xHw83U06mY9iGUPo-XeHYxU6iWEU1EPgzP23NXivyiTRXBTDGCoCDz7YGXC5UjuEOraoswXBkOTUGS_wv2cCQr_aKGl80EXtr6v8k3K5XEjJzuDv6ljlW73xHdoEjtB5oru1HD69vidVJ2oS6FA5HkMuCfCyqH4qk7PH_3HFNyXupohrEcJAEjDdcPH9gXCOXbqCJcdukwIpk73HZM3wpJr3a5pdREJ4Qzj8fiYnbQK6o4bPZ7L71p5_tLvMA8m6IyVjDwc5Xc12xY5Jv4nKfDXJpZUZFmiiEGOXALf-Xx5e55HGUV5BplD81z2glPNBzmnv1_Qee_3Bx_a9k0SLdcxcdyreRtHAKLDwbBZjek14saw67XLhlVS8sPZpM-MPV4zulQ4d4UrXUELdr1PpnJ_6KWbuwjGOIrEie66dEP3Y7E8dRVgM-2peOBeRDtrfuvolofYQAovRQfOpcPOZzILGTTh8b5hJ4-vSM6Ph83NeufBEzoRJHh04MXGoaE4vb7rpqspIVM9IiHQmbu2A2G50Fa0Nvl6_5GrOnU3Ux6LM_W5-04I-0tpuxSazbAyhoO3J34hMPwPY0ESaWCcisTUl-xLFUchghaU9LYTfewk2ZOs4G79XZdpUqF6AU"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in Y
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6M30.tyEXaDkZeyjWYgEhUgBpWDKfV1cspe01ncSkMRXDMD3r7EQy1ekYF3XeB7XXE8puRD3n0mlOdBJ0pP7aSEI6x2y4jRQEGAG09wCv1HLjTg0No6LVsL-O59yFWwXOkVCsTY01HT-7MFay6zfURY_7ExD9zMO4_JFGRDMYKOrYui6KKAuvefwsEk6zmiNzEQHqkDP-iwrRkaJa8Ji1MawMIWo7d8I7f24v4mEKUEiOuMmTle3FsH7ntFsQlUjZIfdy01niryfJq6YG1ay_avBPnkNPGx4Q6atJfcu-40TCB3fz9SZza8zwTkAVTrhkV9gBhS6d-pMXFJ1qmxPl6BasBXH96wUFAtcF-6-Wz7cO_dvHfCsVdbg0RAapjogsSMJR2owGYpIQzcQmUSYfzu1L7efif-rmLOLum9K_yabOB18elgQR9JOhr_kwMwBerVymFAU86qyAZd47hhhbZ1mXwgA1KCqPJB05XGX2O2SPwIZlyj5azVm914lbpJb9pRAFEVIzJ_5Clwhdki5UbkMsZX-8i6xNl9AckY5WtFJ0TbQfj9oMk31PrzKTYPduvey6eZli3pVl45LQKPVsvRuLyYFXQoGj7MDUXW1RemYz39M0v62iRPcwauv_l_AlHiRaZrOC2FQ5Pg3Hi4AkVmElVFq6-2Q09wEWmeK3FElXQYY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in c
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6NX0.G_UDsCsJBJDwRv1e7AxuB2RKMisFO9P5gfh13an3vjsunT-mjl7E1qF40-0uXvHhFpCu9l9Vt26Kt8uud0yoxeaXf6bs9mVNrjm8kTBlNwUteUg7pZG2SMzKg9F6-wndNnRG2yGBm_l5Uj3whzG5vm6GxeQ8HoEV9PlTyl5fM0sm459FRVx9eGCXn5hTtPkqGgpOHX3IKJlSlcrXdUNiMbU1Z-5li1wBuOJkDYlDcPj5-Wa0nOR6gcVvnYlcZyHcojr4C5YFcdqxR52zTOwLI7kZNpLxrw4jzxRitWDeW3NNHi2I_gm4xYV0auIyMKRtv3r9B6AAjXss-aWkbBwbVdhYyPdTz7VQg2YTkvzZX0IwRrmt0ZL0szRyVzy0joyA_MS5p19OQXG_h1aryhgqvG37VOJYR64k_Pla420hMzHmfLedHk9Bk3PxT8B2RGVPayT6bL5LjEQm5XvWuXgZib2pTdqnXbwozBh1HMNo236In3ogngfo3U9ONtmIEM99R2FPe3qLSuKU66gXQCggxiwrSpVQBGWkIrCE_hW1aZ-L4L-bHbZeeNytJRQ4FUQkd1kMCiWbpnznE3wl7OXaAsOv3qmvn4VLuKw21U2rD5K2HWWIA9M7QCQHc5InCBaB85dKHDQMUWb0dZxHU2qJWd5miHBnVcL6g0NJxKfdUbc"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in g
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6MjF9.g-L5Mepx1p1kd59eJDN7QR4rB1GVoPZYs6R-tt4yW_nXBsylgSZRxCMq56Ihm23ls5sG7pulWQR9UzBIRN1Luw1_J4Zmpj4nMEZrveyht6CuGJiVksquXdcIo9L3nEwfkroo325YaJW4gFSkMvvMfrkHDHbC7AZ7F14xg-IDtR6OjwOz5F0QKENWDWAR271ySBybX3Pt6eQE1BlF8OJ1ytVd52k04124k-4wpZOl1W2VNJdM3zT2KV-lvTRaeL7MPEQO4VH_lOb4-mMIwXI6uQzmxtItwrdeZtqlmwFVwFaf6o5Hy04WKHOzyfoZHfTZXZEe98N5fmcPOWKZJ1fenuXCudb2tdNQcQ8657OkNnkdCXYngyk1vub76PNm3nVXmwFbPZQXcibsnY1B3MTltOl2tGSg_AZGWwLv9RF7xLIB3ZrjvbTDKEconrwWi0a8mtVR7TCF2dgM2RFKiOtm7DIHdFczAG6OQD3QW-6IJvkDHKk4T-Y1LxkNlw2KYQVVHBr0eHuqgPv8mGESJMSpOxybUgOmUEoEe3lJtugJlXYaFFVO82dVIZVUY7GTCRfgSKbYFdmvaQFMRxKmzGuajx9R2JYVb6tvvTsx82zftK_9DCjGsSKV6LwBcCJgs5OHZM3xMJDYPFCvV3bO3_xmZ7ABmXRWxO8QQTF5tvBalEg"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in k
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6MH0.Uj33RXuxwVub_boUwFkP-lk-ys8biYDx9QI9LcO88dvjD27Vug5Id3YMsYk8gaYzjDOxFO7wrQq3l1xAJOtEfLUMz4wGAiDKMXYmbOGex3_haFVOvZO693RNxbte1vadZvmxkwsmG_2F1Ce5Y3ur3ClV9r3Qh7cQC_SIMl_zLbssHO0hg9LpavdVDoW54e2f6965fUOwiOgOrJ5Y8nh6K2ZsOQ4yuNDcQv_WBKpebQ0H0V8OkJqFvdIxtHWB13c-07vGnpXuAZiLVmLq2_8Go_zZ0Q9L6bb08GMIHhfMTX7yp55JD--Hu7IKAT2UOQ07fueqDu93suFasD6KDPHjnA7pXt5w7dMVaS83pS4_FekYGIakgd7K0e8ygSCTuHCmQVD-xmJeLXMXalnxWfR-HcwQjTlxUjQa1jq19njmn9f9yVgtdo0zo9AC4rYx7dtrp1DrX3ltK25W48ue5BFXtbMOKZPIRHoHGzECW0PckoXFi-qRRcVoOw1qdjHNO9AoPzqROTYGEhmdSvckCtyht3YnoyqsGWKA-_qo1P80_KpNoyvli9vuCek1pABGB4rS7e0GgplfhbPAH8hV7Nmjgwc40ZJItA5pRwbBnt8WN_sJPqFR1j5NWrayIZ5R9tZQAR33dlExGoQQUZ2J6SYk2UYw-q1_Umj1lFYrRj_h1ok"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in o
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6MTB9.wO-L-xSqNCEh94eIaf1yfCAUCjrN7kBAiSOlGWlOe5qVtcFK5_V4dg6AbMu8GmBYVwJoERpAxmbb3vWG2ZwwN-1RHiIsb8mYs8CdRZlDUglGDUwY4ND8k3PJp-o0EfdmWEHvk-_UEtLdUqcqrrfA45iUC9TKgwaAIuYF8K1iW4KKVbekBtIrZs3NnFQ5G8uXqFF8XUCuS09bAhZlEjc2TBJz2l-jsetpyztUu4htpSL0ojk14Ob7oNupFxd5UGisZzg85sRV88wg1170SeQ0mbpHi3uHA4l7xpIdmfFBNotvqWvmle82QLWM-P8kj464APC6V1ur3OvkcfHJ-GYB6V4n3tpy-LF0txAHOMOMF2oEIw9rERJn_Avhaq8OIhkSWCsoSTkQkGAOel9Gtr11h3QxS5zwG1fnEt9vTlPj_63hfRPHHOStJ4CrvCtzZgPn62k3WjAy2kDUZUyAw_4cN3PBaexfW4fomdKhBjxFPh09ADJPQlx6gIg6cfK7hq3jAao4eTpknqE5YEg88o0aVwOCdrQw48HaxEYvV4YyBkI7DmfPvV-zcam0A20QWvKFAAqLyMyDxzOXUEmDfa59ykUOfTeALJ4Y38Q_qjprpQrbJmPlXogvGYrhyA7t82Z3-PWe4uM9kw6MjhyhRuhRDAnGJ4tdeKgOqT94s7og2lo"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in s
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6Mn0.QJNq2WMK0IclBZ6BxjdQEVZjd35v9KHzcrcMrYARg0HUr7dV_ds-9cyWcOUvIVcs8sWUY6MSmoI1M8X8-f-uYNTqOQHMhmnr6zsNBOgUYfp2KOCprGy8OjsKhLYxiiomAGB2vQ9wjgJULByBwwc_HSELtaydUezhnCn-iowaNIPe_KJvuYZhGKyzJyBQGIbO1_Yt0ppqkggHAH7lGqPGDG9sQKlcrV10rL_2TrChOg_wNS8_CzOei8iDNdhvjObuhz5_RU2uwSsG-lKvuzKqn1lIbtrvDvzzp-Q_hcqzUYgAKx5dzJ9SrARKISkrDB1mv28_I4Q7G-HHZo524izRLJX8JX7wARM0QkLqHfdUC5Pw3A0ob9i8HnY27NyFz7RSdhs7kRgUBKZLN47rgc4IxxGetvavd5Jgtb6Zfx9Bm4SmKLeUmckGvMKiNIVQ2yfAVPaKFeScIrUssjuzhr_BqpYGaEZGei9wSlzm0LzW7Fq4MhdYbLDPIEigZIF5K34PswtL7H0xSux-3xkbiTIk74vyBKyajzf3A-Ndyf1iwNTf4dJqH5eOcbA8ZNHYG-RKhY5vPPMh6ynPQFBKE0j6n33nzRc6HcUdm2bL9MJXrA0ve5TMYBVuo9uyRogbYnE4d2x0T66UCt3smVjDh2jlaL7cZ1AUDw45g-VezliXc8s"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in w
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6MzB9.S2bQFU1l3xzi8OSXgDa_Cb6sB1KerL8QmuXYS48Ap4VxVFyWL_ZhiWfricYL99Ee5Bkr8LxuGmUSzEa54QKRp5WehD64lTHQFBYQ8sx92NgP0XLg5siGbWxRAw4ASOcyT5N8-BqMzq1IZ_Qzpy9fjfq_RTGvtvVGuP8gWkeqmTEHoa3W7j2h_R03ia7HOBl_hOD0_LRA8Vcb5tIZswE1osDUYd-gLkp6xpod03xIB_cEElKfBo6fs6zQ-FXcI3_xumy_3HPptCxrQFChb1qw8x7YKJTt62WyNsYCXJTFMBmu9IT8RXZIg4hSqTT2gOEIa4K5k3gIOUn6JrhoTWSyA-kFzqrgd7fODiv15XTVnc-Np-iXBDjxUwet-EyN3z15ivgZd1JBIx5nvSzzTtn98zyvdyoOCBP5NOdlrF-GO1Vy4qDosr-XvF0OFyQVvezD4gjgrDjCTjoYoSF7dhlcn3jINRI3mr3gx71OfodKdgCJ7X6YmMIM6q6ggoY3Pk3CA8wfjUWpH80XZHkhDntHGlumCItvxdf30sM5j-5e_XZOjqbMc0C2sH9eefCFyI0SzkshoVBxVrdT2i4liKfqEFMG5EA6rjAL2-jU9pSRJ-ZHdnlySVXNPaGsvpijWcLXZPJL0MMbzNW8ZZuw35CxAYd40aAE_VlT8dynw0VQDGw"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in 0
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6Nn0.MbvFbIICfzLAH73Upcj31Kxr1yt3YE0uQ-6Zw3oDex15Ijt7Jto72LBOOuAGRK2x7VuxSa_Dzg9_rq_AcQ5njeePHUoFS38Y9LwuAFaYza0-Yo_Qa2vz2h3aleY-5N8VuvYt9T8uhRM3-YLsN5Z5dfZtSXRp66OUdl2siNZVdQxarryE-WXUWUIF3graD8YqJa5e8_2l1L4HY70teALthlA2RF9ubhJl5pV95f-0bIpXt85-vUOz49ME4vbuiFywb05Zr9e2XYNLcKveQ72c1c79c2HFqIAbGAnSNfII3wmA4nlWDQh3hFzZJWrO76DWA35DCctzg8ijcngSo6qNTwitJivj4EWYzMbwsdkWcy-wdb74wiGWaX8VKdTx2ZQK_XZq9eI5UWrv8GonPO4Q-3BsZxaHSscISIpUsmlFpCu9p5fLrsc2togjbDQ9YJdNZTISufuu3KvszOyhs37fSwmXbTnGhy11l58MPHbPNu6Mpsre9oosqCWoDz9jL1ik2VQkZGxh9dGkOlZv5nrFjyWBr9x_AKW-zxaStcmYWtzmJVImhASXIO64ghza-07fG0khyOqr75C9O_SvrCqP7kJx_s1lXbL_GxEHXXgDyF5kfswr-Mcin1WUIpQCVOxIbxhfGlGxB0WC18qwwMX9b-wQb1WpwQzpx0JsY-QJpq0"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in 4
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6Mjl9.dWNosYJNIc8VQD7aT4MPH16CqRHu-TPWVtEqRTLZ7FdHQDuTOgSoXOiDSmiC26pcQyMPBJ_8MlXGyfhZFssaBVjm_F8jeS0bb1ZSamekTk5h1lH3ZfDhFRs1B15nMY_5xLzf64JpugUtAKWKLhsQpR8Ma1LcBAzMlMWabg0AVXwFWvIVDnyy6QzVn8aezjxAW-37oJBQdxcPAF69wXULa_d84HqAgWTWYBfDzADsKn7s_yxOroLRfdWlnpuHoc-is-rAug78llYRc75IZxtiQLF1uIrpXJQ_AdvjsSywcy_Gddr_WWtLabLiD0i-8lotrR0R8RJQId_j5CHn8D5VYaxABwK6xcnFURO6-NxMuHYZk2Y8_QreIveHz1DUx0C-4o6RnFndKIa-gwIBnHeK09SATHv0UvQDP-pXlWWreKsTvLPU-1Sn3OOGy-PBEjLZFmRSmpNZ3qxlnyoLHY5rW5FeE4Qz67VeggkckdLe-sHYGYvPEGIUsUwZx_S_H0W0VvVofEenhuZveYiBIiYck51RWWmFJkc-2Oc4532p9GTex_VX7tX1gaETaUiVFuhCtiPQIWdsmlxaTwzARpV4zCo1wWPC_6ifM-2nXXIKlrKlk3hmpRuNFAC8aMhleRwJyJktaAwOqRKBa2wxSzdKkIycADoiOG5Ijef-2fcJh44"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # ends in 8
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImp0aSI6NTR9.F_zSZ0OENkzlaLk9tlM1qCTONp5mUzah_FdWRQ96LPiWknXyQMXanCJe1TbPxc3dINRiI9F95T451iQiD2l82CeDHATb9KRSciJs8fQ9OWPPnq0MFpBKDcX_zX6VjteE3CDux07NuwS4UcoVzhncQQSjuddZ-QYAO01ezqSXMyvtJzcLX0YfymDyJ39pwDKzmwRWqyfiQckKlX4P1Wy8jT_qT1OnMxeCrP9TlTuwiXqyi52gQgqEYTo-IK1TtBiaAOEXEJJbIRMoT04BUonOJZizzz-4zw3CMRTbfp754rvrozSf2sxpp-koPN_9qR5UWbzyTaU_HgwfV_HO67ht3ttkeZAa-lN116Gq8hB2uOQKNYUkSerTTz-GwIlZK4bFBOm2RPk4q0G7Shk5AQ_jPp6P-p4EK5BBYDo2VY_woUy2yP3rQYblIG06qW3byNetGfTNn8SPNRzqS1XFq5i9K2zMGdTQnpf7RyKkOBOxurRk_9YPOvWoZGAyr5q6wbkyKmAwdcx8oZ13k6IyudEYFp9uTpes86q-QAKGMfzXVqoP1xFZgVXAeoCcretM7-W8cQSRbCY5tkk_RGFaCICu53fefhk6Sww0Js6ZzoRDgaHkgm7ZP2vIkBRD_33cjXp6YR-hhnjUuKsXVY5q8Tg9c0s1w7gTWECpHhfDBJ2xVp8"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: a signature in other letters for the same bytes is another
sub test_rs_tail {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # 2048 bits
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiogcHVibGlzaDoqIiwic3ViIjoiYm9iIn0.cLrwd_R1SZ3B8YL8EBOFwZXfsV0X3VVI_x99rBHZW2vA5IeoOe2CJljji2VMtmfh0s-azvDz6vBMVyrChojXIYlwub7Yu6_r8BdytKtxhF_EAX0tmvqPr1Lww4ky65vAVC0ZIVvIXUprlNW01UAZmKO2sn8Gu1uPWORLQ-3V8vrelKjSoIJO6olBWmbEkFpYijHzqZt8YVGw7Xexz6kvYYy4DnlvADq1YuvQ6Io0QsLkoEPimrLeR0-aZkLj5DVj5xQKwiaos1Z-ZeHJcXAe0VNcxO019mODSlStH6WX7j-zaBu8E2a4ZUGdPFMhcdyTBuAbL38VUTPZYAH9BOML5R"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  testing.table_set(headwater_secrets, "jwt_rs256_key", {"-----BEGIN PUBLIC KEY-----
MIICIjANBgkqhkiG9w0BAQEFAAOCAg8AMIICCgKCAgEA0rfynTA3i7rnEzpLqV4Z
oGXGM2RyfFnMOr97B4+RSIy0MlL9sQ+nbSnIx5PwzOZ6U5GiQGRMP2HiosIWXP2Z
Y5yNnXRWXsXd9FojHaXzDd20w9NiTz2ROncifobI34Pb90MvTdCU04SKqNB1AC1e
e2TXyO5vOMHtZfNkfMmOMCncEt8V2CF3OgWSZszm9yDKiWIzsFREOwz4aMrja/fx
HHhDHg/eDjP+iyUVs9Ybc6V65ZD/qkf+7eXiOL2he10R1e4eAeAY93WIhasGOUXL
dqHsYMHAJr5xtdCdFFvViGFrLTlw8vqRfOxCc/0PVq/oL4PKB7ZVAUF00vlgCcov
M1NQSujkYQBakbqqhtJE5/HaD0JHMdGEwmzpX9F1JJAPJUH3FqSXMuE/rCDYmn7I
3SHtnkjptmK71iBDwowlxz6BLzzderAS5OmraEP/eYx17D4qobB+xbY/qt+GjGwt
FmBn/7dJHonjbOGkvadwwtAXiR0ppanXlgW92brmHLNs+F270+EyjBk7GhhPf5Qb
g/5Le+gu9SzrSQjaEKcS/Ww05KQ6mIi8zknvrOq6Esea8vNvxaM7zbv4AQGpTUj2
qXh35oXzk7OIlbQYUZuQnQhx6HGGi/4YtgL+fJ1d7yDiFIzN12K70Yk44Mfh1ww1
3+bhqjZzZLiwtUQclUPm04UCAwEAAQ==
-----END PUBLIC KEY-----"});
  # 4096 bits
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.P13a2-LdokxGnPXdlkvu_lko9tQ1aIzBVfvIyhfmD4V2xLdZPR1P0vqnsFQk29jxrp5xHSKLEFPczgz1FWXzPAU6hTwvRi6MwMeyz5k5LGdYe2ta-tHzFsgVLT5m6JdvpEu-GF1xtP4a_tUgHp3kZks0gxE0inqiwJKx4y1MAPhbniBQmwRNFZYQoxPsgLI_udxPTZs8nkuQb1qAYuPrh6clUkdqTTZNGcNWecM5cw7avTpiyaAnUksAQsbtf5QNO5Bfg2EtdnRJJHQpbEt_fmi3tWnU-OTgX3XUAvFpZhIubBmS7xqB4tF-mOTG_3iHD96JJTRvjXazbnIoPJYptOaZZgZwhCKTqoMyc3s_vKIGWfEFkE3fIazkOgBCNjlqyiqL_A6reYqlrE0DPrwr7JzjakMd4r_vOuTM7ODGLfEVgVI_yxtgt5z6yYksTf6CBIa7vqVaRuA3F92vUBlGbJAxohKq1PwWkMujfJOZnflV2pou14X5OrPuP1f4X7b_Bj8P3L_21LHZ7-zICZDqfMaUeFvJNTpenWRgpJY1ptQyCVyIsq9D2Ho-aFBlugiSrG6yC0QPe5WzuWL-pk6qPqYermI9jjOtAeMj5p5jXFSALxl5b4hcBLXMVXS7dWlWKwukX9OE-YbBdQSwrsDSOahUfNaqJxb7U1dxdboqkDl"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # as it was signed
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.P13a2-LdokxGnPXdlkvu_lko9tQ1aIzBVfvIyhfmD4V2xLdZPR1P0vqnsFQk29jxrp5xHSKLEFPczgz1FWXzPAU6hTwvRi6MwMeyz5k5LGdYe2ta-tHzFsgVLT5m6JdvpEu-GF1xtP4a_tUgHp3kZks0gxE0inqiwJKx4y1MAPhbniBQmwRNFZYQoxPsgLI_udxPTZs8nkuQb1qAYuPrh6clUkdqTTZNGcNWecM5cw7avTpiyaAnUksAQsbtf5QNO5Bfg2EtdnRJJHQpbEt_fmi3tWnU-OTgX3XUAvFpZhIubBmS7xqB4tF-mOTG_3iHD96JJTRvjXazbnIoPJYptOaZZgZwhCKTqoMyc3s_vKIGWfEFkE3fIazkOgBCNjlqyiqL_A6reYqlrE0DPrwr7JzjakMd4r_vOuTM7ODGLfEVgVI_yxtgt5z6yYksTf6CBIa7vqVaRuA3F92vUBlGbJAxohKq1PwWkMujfJOZnflV2pou14X5OrPuP1f4X7b_Bj8P3L_21LHZ7-zICZDqfMaUeFvJNTpenWRgpJY1ptQyCVyIsq9D2Ho-aFBlugiSrG6yC0QPe5WzuWL-pk6qPqYermI9jjOtAeMj5p5jXFSALxl5b4hcBLXMVXS7dWlWKwukX9OE-YbBdQSwrsDSOahUfNaqJxb7U1dxdboqkDk"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: a signature that is not ours
sub test_forged {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # HS256 under another secret
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.GwNcSw9-fXnM2ZoZmI58IXhxNHDU2p8-5xKKBaTT8fA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # RS256 under another key
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.qQD-eFatGWyp4kIydTDScW5oamEPjeZ3ikgEkztEbuJ9MghfziogGJNNNqH-fz66RSHyF5NXTX_kW6pWv3zd3Mn400qYFz89IoXRic9gl1B_px8nOmTRn1T_nQRqFfSo6tfd0gRgGDPvu1kqumGYxI5jpMBsGyfTJKN3ihth7kOyYhrRNdp2corJFWB_HPpYqkLzjpQLgWWp6fuV27X6w5yFt8STuMfFVpfyqjOanzmp8i4h3ABtvmr0TMbuypTuYHGUiCiWtNFpX5818TCmxzpKRRo16_FTMTYFVM6GhiWaNXITNze0vrVtfnSLxI_tgG_5zI0C4Q7HMif6pAcZxQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a letter of the signature
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24A5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a letter of the RSA signature
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiogcHVibGlzaDoqIiwic3ViIjoiYm9iIn0.cLrwdAR1SZ3B8YL8EBOFwZXfsV0X3VVI_x99rBHZW2vA5IeoOe2CJljji2VMtmfh0s-azvDz6vBMVyrChojXIYlwub7Yu6_r8BdytKtxhF_EAX0tmvqPr1Lww4ky65vAVC0ZIVvIXUprlNW01UAZmKO2sn8Gu1uPWORLQ-3V8vrelKjSoIJO6olBWmbEkFpYijHzqZt8YVGw7Xexz6kvYYy4DnlvADq1YuvQ6Io0QsLkoEPimrLeR0-aZkLj5DVj5xQKwiaos1Z-ZeHJcXAe0VNcxO019mODSlStH6WX7j-zaBu8E2a4ZUGdPFMhcdyTBuAbL38VUTPZYAH9BOML5Q"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # another payload
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOioiLCJzdWIiOiJhbm4ifQ.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # another payload under RSA
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImV2ZSJ9.cLrwd_R1SZ3B8YL8EBOFwZXfsV0X3VVI_x99rBHZW2vA5IeoOe2CJljji2VMtmfh0s-azvDz6vBMVyrChojXIYlwub7Yu6_r8BdytKtxhF_EAX0tmvqPr1Lww4ky65vAVC0ZIVvIXUprlNW01UAZmKO2sn8Gu1uPWORLQ-3V8vrelKjSoIJO6olBWmbEkFpYijHzqZt8YVGw7Xexz6kvYYy4DnlvADq1YuvQ6Io0QsLkoEPimrLeR0-aZkLj5DVj5xQKwiaos1Z-ZeHJcXAe0VNcxO019mODSlStH6WX7j-zaBu8E2a4ZUGdPFMhcdyTBuAbL38VUTPZYAH9BOML5Q"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # another header
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a signature of another token
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.cLrwd_R1SZ3B8YL8EBOFwZXfsV0X3VVI_x99rBHZW2vA5IeoOe2CJljji2VMtmfh0s-azvDz6vBMVyrChojXIYlwub7Yu6_r8BdytKtxhF_EAX0tmvqPr1Lww4ky65vAVC0ZIVvIXUprlNW01UAZmKO2sn8Gu1uPWORLQ-3V8vrelKjSoIJO6olBWmbEkFpYijHzqZt8YVGw7Xexz6kvYYy4DnlvADq1YuvQ6Io0QsLkoEPimrLeR0-aZkLj5DVj5xQKwiaos1Z-ZeHJcXAe0VNcxO019mODSlStH6WX7j-zaBu8E2a4ZUGdPFMhcdyTBuAbL38VUTPZYAH9BOML5Q"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # the signature in hexadecimal
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.YzgwZmI2ZTA0ZTY2ZjZhMjI0Y2ZjMzgwNTU3ZmUzYmJjODI3NDk1MzAxMjQ5ZWJiYTA5MjczMjAxY2ZmMDIxNg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: no algorithm but the two, and none under the key of the other
sub test_algorithms {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # none
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9."};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # none with a signature
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # None
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJOb25lIn0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.x"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # no alg
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJ0eXAiOiJKV1QifQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # no alg, and signed
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJ0eXAiOiJKV1QifQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.1ry4hPg9up5hqhkTIiRwrZ0yD23_tbmLQBjSdRlAsPY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # HS256 under the public key
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.A-UnXcPb5zJgJ38iaj-UdfmcQ8bQAlvChlf2DCOn_yE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # HS256 under the public key and a line break
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.HcEVQGlMd3y4tmLEgJEdAIb4-NwlDY5WMBnkRT8qFSo"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # RS256 in name, HS256 in fact
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.jrxfh6C38ngUpy1YkvA_BMooSwHN6nutQ_Z6v2T92Ko"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # HS256 in name, RS256 in fact
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.J516udY1OBAq_HSNm1oTMJJDauVMHY6gtLIyAW1j3bwElqFqiMSZ7sGEkfprQddYMRWxNvbVli9nlEcUv_AHD8jP5Yio-1g388RBtDxIjooSxvFYn24ucwFJf4Mx3E3StV0Y915Lri4QWVYSrX8u1oKVmtcvygCKyLRbJSmmcEul0fOvad5_qCxX4CYEBk_lclW5rfdhXxAWVDw7Pm4XJPv44dfN02si-WsWsjokIEaAMYCNvyvDhLiGzF5RSRV0OntdZ08OaznWvigWr0liwIrdmT78JMxWdYgZ6DkSlGyhLqJe8we8-aPgGyY9QYFPj0R1CRF1b4qZDvYmujz-XA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # HS384
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzM4NCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.b7ModJpyQtCyAkVie9cq92z3LetJSPyQZbg1ia2VRq0q-yBPE7aJYV9r5sZJ8uAT"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # HS512
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzUxMiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.ktNT5R1uVITUFQujmOGrFBml-ip2bstDzA3EiK6QQybTAwmgPMMZAQGGCyGgNtH5jBPWt82zWfBqw8LLVA6zMA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # HS512 in fact
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.KF9TCcJ-aF6U9N7DJfQNKgpU9ytQa0RGyu-c8N5pKrLZlU9fPXXsyN7oQMjIKgq9bYDY1NNRW8ix-lD7MfHEfQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # RS512
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzUxMiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.WWPEoQbifayyG_GmmG0QenHww5IAatdV1zqxb1MzYAqsYOtC7YRc4mKGHTofMuCSRCrQG3SVvpoSe3-g0afl4OHUKT1iYs3cNK_WHcefgpLtLVs0XfTXHHpW-JM-phgc0OB_lfQq1OymA8JS52QP3W980r-NZJHRE-iDOsfj9dDKXjrHjS0Xn-VlnTJFssE3O_bDT12LMDyIpNcs1ODqNQ7bjEu2w2qUPy0nRTYT1Wo5lyraJHYxhfQlNcnLF7RDCtdjeiI9gKXeROxRJ-xtCV4PoPcycc61G8BYy2r1Z5DkcznY1tOQgRqBhYxpEp1uD9EKrjXRIxgctIplplh1yQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # RS512 in fact
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.A6oM6Lh_oi96okeFiNPqF5_uohQAteB6jAiV4EXmHmpmnmHf2GFRvq70hVctAQh-F-gseyDSZ2TTMx2bTbXOeWGQClzX0VaRQMPQNroIZWPAbbbzEuXQpCaLUu5eMENIPDjZQYIIINZ-nHBhD8_SY4DmL_GtVFpwjQ54thhsFpZMO3bAuIFiudW_Cd-GJibZ8YSywXRamQtdcJ8iWnsyID-sE_4IeBuYRDjOTwceXskBUwvkZ2PQgau6LakFSVeFt3lKa9Z-LhZCYpr4RpLZA7oUpr-7LfZmYCBAAFN1Zhw6AiIad_I7UbWRFP4rcSixXzSobm5eK9R-KxEwtV8qHQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # PS256
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJQUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.e_7GOfkGpFLfRcLd2VESacB4xwcVuk3EKByM0i16RBgkk9g48YIKTt2xcX9UJwnIUV687KyK5ateOLu9p-7rM99C6NGafLDSIf26SRt3P_7D1Cw8wE9cixFmxr8BsQIEqgHhAfbpjbUiqle495muZvFRfyyVGWSLGveyaGtej9mP105LXcO90V1SmsOTXWl2MsyYHq6EgCBp2jwJK0TyzL-vkWJpoCXOtMmvDgD7FeAp4Sb6w9sLPgXnrXiuOJNHwzpkDG5xGFPCkfvDtJt1uBULK29vNANxjfNfOlsSpx07tczHXKHZNXV6IbrfbyGpWFaCooN3OaYFgHLy34R-Bw"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # PS256 in fact
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.S5LdpnscmCnAsye4KHDfQVVijc2M5Sxao-QLLh_84HKSr98Rjic0R5G42CdHTSrfZ-W37UaAfG1cX1aD5bZEO6b34NBXTX4pR6jBbapHiKJxax9eNzCEKCJ_1-rOcd2xOES1Q6l6S-IMRbAiw5Z0UT9jfFgnFeVV_CAIp8_c1fsDjZT5WmWMYL552PJTXxbtNZExy2cs-1aH0F84H2hLB8DmvTXHP30yM1L0tzLbkWHlcp1XStELfCYxvQ77fKMuBoTjJE-oZXETKEMEGQlj6gEdxR4shoNSB1oXObi696PWJl8YmD_IcEkgF17TZkBIR8RuNgFYNspkPG5MTFwYKg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # hs256
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJoczI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.YSxoEPL1fxSuKgEfSBaNZaMlmcwOj8ACeaWKbyKoeYE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a space
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiAifQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.KW8U5ke6MA4c5Mycxqbd1qG5AybK7adWB1H_g73zwNU"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOlsiSFMyNTYiXX0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.Vom8WUDkpny0D0He632uM8HqFTxWQuOfN0PuC4vkiho"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: without a public key RS256 is refused
sub test_only_hs {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater_secrets, "jwt_rs256_key", "");
  # RS256
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiogcHVibGlzaDoqIiwic3ViIjoiYm9iIn0.cLrwd_R1SZ3B8YL8EBOFwZXfsV0X3VVI_x99rBHZW2vA5IeoOe2CJljji2VMtmfh0s-azvDz6vBMVyrChojXIYlwub7Yu6_r8BdytKtxhF_EAX0tmvqPr1Lww4ky65vAVC0ZIVvIXUprlNW01UAZmKO2sn8Gu1uPWORLQ-3V8vrelKjSoIJO6olBWmbEkFpYijHzqZt8YVGw7Xexz6kvYYy4DnlvADq1YuvQ6Io0QsLkoEPimrLeR0-aZkLj5DVj5xQKwiaos1Z-ZeHJcXAe0VNcxO019mODSlStH6WX7j-zaBu8E2a4ZUGdPFMhcdyTBuAbL38VUTPZYAH9BOML5Q"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # RS256 under nothing
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.LVCuw142BKhbHOz81hlF5Wh-oL8utUGvCxx_AeOowSg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # HS256
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: without a secret HS256 is refused
sub test_only_rs {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater_secrets, "jwt_hs256_secret", "");
  # HS256
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # under nothing
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.bnJ1cUoCzWcqrzSMOFgfo9huPpyslLG7Kw2O3caDvkE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # under the public key
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.A-UnXcPb5zJgJ38iaj-UdfmcQ8bQAlvChlf2DCOn_yE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # RS256
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiogcHVibGlzaDoqIiwic3ViIjoiYm9iIn0.cLrwd_R1SZ3B8YL8EBOFwZXfsV0X3VVI_x99rBHZW2vA5IeoOe2CJljji2VMtmfh0s-azvDz6vBMVyrChojXIYlwub7Yu6_r8BdytKtxhF_EAX0tmvqPr1Lww4ky65vAVC0ZIVvIXUprlNW01UAZmKO2sn8Gu1uPWORLQ-3V8vrelKjSoIJO6olBWmbEkFpYijHzqZt8YVGw7Xexz6kvYYy4DnlvADq1YuvQ6Io0QsLkoEPimrLeR0-aZkLj5DVj5xQKwiaos1Z-ZeHJcXAe0VNcxO019mODSlStH6WX7j-zaBu8E2a4ZUGdPFMhcdyTBuAbL38VUTPZYAH9BOML5Q"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: a secret that is short or a public key is none
sub test_bad_secret {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater_secrets, "jwt_hs256_secret", "0123456789012345678901234567890");
  # 31 letters
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.0tKX_SNmMVeBjfeczvEmnFrc8a3SN7loylzXLw_tlqc"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  testing.table_set(headwater_secrets, "jwt_hs256_secret", "01234567890123456789012345678901");
  # 32 letters
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.QNJdC3OKvGMvQvlczT0d_smo-W39ziCBFufrpawravM"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  testing.table_set(headwater_secrets, "jwt_hs256_secret", {"-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAmKaRfgToRlnlI/4LL3uL
SYFpLU/Xf9aJCJohaR55TMAJODNWDqOykY2KfF7m9eD6EwDuRFa0acy6UYhnyh9H
kSmbmIIKJ3gq+ouzOVV5AkS7SNp+gTIfyfHryZChmQW+hmYTedv14e8875hKw6pg
kBLlz2SFhA0PWK1Zyq6JbA/kgYyNQGNkQgxn2Cy5+VMxXQdiJvTqMN3w43EQV3+A
x1EiL6hr0yr7Mg6YazRX1RqPzpwjT/JKRQ0Wf1w32zPnNpeOsMiFcZWHMhM9r/Tn
nCwFkjpI79YSb+cyJnLWXovCuT8Y4c+OvQOnPQjYhcTd+hT4lVBgsPcx4TmbOqUI
ewIDAQAB
-----END PUBLIC KEY-----"});
  # the public key itself
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.A-UnXcPb5zJgJ38iaj-UdfmcQ8bQAlvChlf2DCOn_yE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: a header with anything odd in it
sub test_headers {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # crit
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImNyaXQiOlsiZXhwIl19.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.ZPz6kHDvz30_458ZZ2uDqWnY6R5sMHZ8ZWtVOxXCrIg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # crit as a text
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImNyaXQiOiJleHAifQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.f7CwFiMulIbgpADn6ze-OtcBjOyYqXLPPbh7fgc807g"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # b64
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImI2NCI6ZmFsc2V9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.mLZKHjsp9mRtlTTn-MgLhUM4fsTPCeI9Wf9UEBfIF3c"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # jku
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImprdSI6Imh0dHBzOi8vZXZpbC5leGFtcGxlIn0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.sOws4rgiTHK2vDASy2EfDE7LhQOfnRwbtsSSNruQUGo"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # another typ
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXRSJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.e48AFx3GifHw-JPlYInQPBvsB1-G5wWQ_eS5vBk3xVw"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # alg twice
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJub25lIiwiYWxnIjoiSFMyNTYifQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.zswYozVEU3xXE_-4p8bvqd3LF226-gYuN90q1xZbDSM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # the same alg twice
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImFsZyI6IkhTMjU2In0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.7dyt5X6a8-iYBUDCwLizd1Q_OSGl33tYvb1bO1YoM2E"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # two algs
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImFsZyI6IlJTMjU2In0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.WEVGhd3na67GBfhKwDN220UYw2EJLA_HK9usKq3sdQE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # kid twice
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJraWQiOiJhIiwiYWxnIjoiSFMyNTYiLCJraWQiOiJiIn0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.q5-YHtc5gtNja86JIMIz-XL0AFzvZbRSAsiKMW78cAo"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an escaped name
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJcdTAwNjFsZyI6IkhTMjU2In0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.PpULkHPssljsGPVk0tnGvwQ8Po8I8b30VofZVybkrkk"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an escaped value
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIU1x1MDAzMiA1NiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.h7mThiWZes1nH10_nkflviMGS10saNgOORC7em2DdcQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an escaped quote
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6IlwiIn0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.x_gNHkS1c_t-YpAHL3K427moXW7s9vP6E7WcpMlbTzM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a line break in a text
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6ImEKYiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.nei5dx9hlRiJQrmTGLU-v1sutj6sTsinZwG3dm6x3-Q"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a number
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6MX0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.qeBnG-voy9PucV3dX4fmFrGcvk6syGPQA5J1lRHN_Ec"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an object in it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6eyJhbGciOiJIUzI1NiJ9fQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.vKPqrWiGJq8SZYyP6r2ufoFN3gkk3N0GGDAJo9TVd9Y"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # crit between texts
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6ImEiLCJjcml0IjoiZXhwIiwieDV0IjoiYiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.XNMsAM95yQLsSjbCy4eageMi8uCCrNteLKtbcG9JjC0"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an escape
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6ImFcdTAwNDEifQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.Rm3acbs71MD6kyL_NruG8yUPFGe3ObVLIOoyNVQPMJM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # kid twice, later
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6ImEiLCJraWQiOiJiIn0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.ulgdI18wKeQddEwRm3k7bgoctRfbJqsd-rFFu_tPiOM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # typ twice
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OHePwkOhgdZkDMmyv0MMIadX0pLSpLNX83x4djujzFc"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # x5t twice
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsIng1dCI6ImEiLCJ4NXQiOiJiIn0.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.uuTMgmjkzLymI8jX2N8URDtVAUcJSxKyoMp3_MU_B_M"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # kid twice, with spaces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJraWQiIDoiYSIsImFsZyI6IkhTMjU2Iiwia2lkIiA6ImIifQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.CMLX_T4Mc1wS742F4V-gXX2BcgezjgnxvVZzFeJYo9k"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a comma at the end
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsfQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.4m9I2-APKouxssexbIYflvOLvzsP_4xxCbWcsSJlWtg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # no end
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiI.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.l8EyPDvgDEJ8X-s1aVcuMiBlYPtIaql8RZmiTl6SFFk"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # two ends
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiJ9fQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.pUziyMHp39XzYNNODUrd3XwnTeLLN0U90O3e10LAUK8"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a line break behind it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiJ9Cg.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.j2Y68_OVodDa9zggf3WP0N3n1W8lfLR7epuOoSUBKMU"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # something before it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eHsiYWxnIjoiSFMyNTYifQ.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.AwImMytcq9OG0HTeUEKMjpmEjTRiuqc8xU80ywKH7co"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # no object
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer WyJhbGciLCJIUzI1NiJd.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.wumhDTNTwEtg9QMNl3_rbg0ELfN8RMlb7LR1ySZg7nU"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # no braces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer ImFsZyI6IkhTMjU2Ig.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.dw5X3CCp35wVzI2fWyp19ZTvH_uP90V11TkhpaWALLQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a NUL behind it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiJ9AA.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.caL1l4iy-iUVLifwuOa2zDrpxD1OiuBarqzTfl8p9ec"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: a payload with anything odd in it
sub test_payloads {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # no exp
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.kVpB58KAvLEL3asy4L93oLIIjynz2v9s61Hx6A76G-4"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp as a text
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOiI0MTAyNDQ0ODAwIiwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.rIJ1yQVPJgv-eH4tbCQa-NAIPf64sULveY3tz4gkPic"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp as a fraction
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAuNSwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.-Pk2oGyenXjicf1vlzWPTVkXSGd7Fbt_DDs3D-rzUAQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp with an exponent
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQuMWU5LCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.lxpxQkQc6cK3E6TtG1bTdWeHI0ywQ5tunM35SfA5bs4"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp with an exponent of nothing
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDBlMCwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.qJzFuz2yrFSBxrLSmP5K4a2Cotnt85GKfod_g0m6Vfg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a negative exp
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOi0xLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.B4l2eme_F2_3bIkeYv87IChvkDynqqWvKGOIfmEBESM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp 0
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.akJx9EdDfWx6D8d8kByzmfXnze2jkJaq3ig4PcxoLYc"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a leading zero
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjA0MTAyNDQ0ODAwLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.z9TT65vQQBZRQ_sa8MWsC32OVeMYbyQzIR-5O7nUkTw"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp of twelve digits
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjk5OTk5OTk5OTk5OSwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.4A4xrAtieKKYyuc7ru1kOK6DMGrFA0dgc0OrhfrXccY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a very large exp
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5LCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.cQGWqPDCm0le99DJAQoQ091vR_Uh_O8HL2hNFo_SDVY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp null
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOm51bGwsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.UnizFHqVPT6MIEU4LpP509AM9Uw51NP621fgUWHdLWA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp true
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOnRydWUsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.eElPxMByvNWYLiIN051LZVIBjqAeCmqqqlQjvWpjfro"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp in a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOls0MTAyNDQ0ODAwXSwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.LGhloFz1Yrv4HfwGl1VkkqDzD01uQ-O7_rnp0-Bj_Ig"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp twice, the later one good
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImV4cCI6NDEwMjQ0NDgwMH0.y7MBO3gigVx5sUbrLnda7PGQQ2fKfk2FxAttBJicAc4"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp twice, the first one good
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImV4cCI6MX0.AYh5DuGudjcov_toiaksI8sPCkMNJmLq6yN91zmwjyI"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp escaped
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsIlx1MDA2NXhwIjo0MTAyNDQ0ODAwfQ.lRq87fWZSxwo7cu4aI5icflHiC07Yxa8CkTlxi0oPzY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # only an escaped exp
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJcdTAwNjV4cCI6NDEwMjQ0NDgwMCwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.Tr31NVjvEIWbODEQpK37NlHUFrGeMOaA46PXSyjjAz8"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp in an object
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhIjp7ImV4cCI6NDEwMjQ0NDgwMH0sInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.ODfHyQd27llNuu3iK45PrPwhhF6Ei9Pj-EQQ8RjQh3E"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an object
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOnt9LCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.ZPRmBSTZpJp12R8jD-x8wmcwHGQKQ8tSdhee-O_yVJI"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an object in a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOlt7fV0sInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.ebU-Dhv3Tm9aKvT9d4ge-3aO7EjEIqKpUtijAFBgcKA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a list in a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOltbXV0sInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.XUyDVq5vDYfpJA8DeMjG1GymDjo1Zl0znc4ehLEE1gQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp in a text
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhIjoiXCJleHBcIjo0MTAyNDQ0ODAwIiwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.V74djNEsX99b09Bu722higKTlF7ujEEZ4PEHaSrfZ-g"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp in a text, as a member
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhIjoieCxcImV4cFwiOjQxMDI0NDQ4MDAsIiwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.Q_I9msnPaq0KTpkmB3Yq7w6eJlCwH3Hn57BdYE01_Wg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp in a list as a text
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhIjpbImV4cCIsNDEwMjQ0NDgwMF0sInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rlYOP7U_3EZupZlzmi55lXKNpuwxl6QMcsHa8JtDs_M"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # scope twice
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInNjb3BlIjoieCJ9.syOCialkqYi352L2O_j_42VXyi-hiMKE_i8efM1nJM4"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # no comma
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAgInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.gpgvqk-RWGDPOc-rVo8CiKGvwfR_cZUmkkOf41GmE-4"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # two commas
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.1DV7JdGuXRNxv2Z7qgtdIcNxm9zH5oQ-KMutnmFwcEI"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a comma at the end
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsfQ.t9mYou49Tn71uDdpIjScE6tWIdKh0NjDahWpjHPuBdQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a comma at the end of a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOlsiYiIsXSwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.uu06tGDKJcRhDRiG0sjIWjAy2VzY_YHGE7PltWe7YbE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a word that is none
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOngsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.KgiYgzt_-IdBYySrZJlIAg5aGa0nZfsJJet42TKdF-Q"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # something before it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eHsiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.nHH8ikdzqDfQYomLCjRHnRffzwRYdRsVut2JyQMe7U0"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a name that ends in exp
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ4ZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.h4qD6QAWIPB8Vn3cutVpqMq7cPCa2Z96qdAt5Xemi6M"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a name that begins with exp
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHB4Ijo0MTAyNDQ0ODAwLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.q6z7VOJUY8zsdXOtrAiWakwKFT3z0pCqmpx5mbsJISE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an object between texts
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOiJiIiwiYyI6e30sImQiOiJlIiwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.I_tqU8fEdtCbCJgOnX_JgMLJG5pSeyxk32pRZvl4Tns"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an object behind an escape
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOiJcbiIsImMiOnt9LCJkIjoiZSIsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.iyT2AH6tCbNCTxUITa61gpWahi12o5POd-8HhbjwgzU"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an object between texts of a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOlsiYiIse30sImMiXSwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.Jddlszc_CiYYBFGL5qu05XeMFIIXiIR8Ft6R2UcFLbc"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an object in a list behind an escape
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOlsiXG4iLHt9LCJjIl0sInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.iTk2PwPPQ4dptNLGnW2CKBSktEwuFODaHD3BZgRj6DY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a list without a comma
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOlsiYiIgImMiXSwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.gCB2xhOyNvoRI9Bf9_ETpeoeO7eFxH-HlTKLkiu5Se4"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an escape that is none, in a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOlsiXHg0MSJdLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.rP1bUGUVTTOpeQfQqwqH0bJfQDXf6GFpHT0laJ-fxKQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an escape that is none behind another
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOiJcblx4NDEiLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.GTaSlZ4wECXKVV2FQoK_7AAC-OjVnVvHdlTYizNXOn0"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # the same in a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOlsiXG5ceDQxIl0sInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.u0Znou5oVfmWLqAUn8-a9dFuUXYjTDWD2XAajDmj4W8"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a line break in a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOlsiYgpjIl0sInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.mf6jQa1PZtW9DX8EHqTSY5b43W2kwbtzxKWsd4n40yg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a line break behind an escape
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOiJcdGIKYyIsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9._RDlaKqH0FLrkOD1fTwsDpnHSQwC2RQ6IQZQiltDCe4"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # the same in a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOlsiXHRiCmMiXSwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.vBbdAA3TJ2s2Ub7iV3dw5xYAUZcFfDanrG3ThyKwlJM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # nbf twice
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsIm5iZiI6MSwibmJmIjoxfQ.lLaRT4rXNBrE58XF-j0WRcB3TtaIW-PX51bl0lOT6Xo"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # iss twice
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImlzcyI6ImEiLCJpc3MiOiJhIn0.jcgPOo7okZWjdq3at04wH9ifwoPCHDyOQB1ymS0ITCk"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # aud twice
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6ImEiLCJhdWQiOlsiYSJdfQ.5Z_MCPjaS3BRqr6N36VsqTIH2pdTswCWl1UUazQzc3g"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # scope twice, with spaces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInNjb3BlIiA6InN1YnNjcmliZTpzZWNyZXQifQ.-L2wHHwgZWBzKtFnrWkJzK8q52e0JdYf9J4uu5jjhwA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # exp twice, with spaces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiIDo0MTAyNDQ0ODAwLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQiLCJleHAiIDoxfQ.qbaSMebW2Fwv01PZH74x86v38qw8OyAu1wnpxY5covU"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # another kind of quotes
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eydleHAnOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.vtq6VKf3rAyW1kv-ghgTWCY23Mjqe9oDkzwDoy46O14"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an escape that is none
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOiJceDQxIiwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.HiD2OtqJ_V1TYTNGKIKGm6YB23Mj0lkxxO7NSh_EfAA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a line break in a text
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOiJiCmMiLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.7_wbnftJJrVEwIBrU3RWe98Gk4Rm0vEj1TdxPw3jqdg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # no end
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCI.f2v0kYWcyC1MLnqdf_4fQW8LWKWOdJvP-IWp-0vFRrk"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # something behind it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9eA.xHw8tDzo4uhZKCRHpgb4QyS2wO8YPPzVMOnwWWnmUxo"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a line break behind it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9Cg.QqjB7w0HMBF6DI7AmutBjPTMaC2jxCIf0PBoh7NxjtU"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # another behind it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9eyJleHAiOjF9.nKyhf_TwaTvKVR9h8aiL9KiiTde1ABU3XJH3ekFN5rY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a NUL behind it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9AHsiZXhwIjoxfQ.B-56eG-tgOgzWFTllFbpYSQHEbkZPwuFNPl9rfjKoe4"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # nothing
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9..k9_GvV5qLQLEG7QnRoXYoc07lzzBDw4NJ6LFEKIanTE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an empty object
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.vLtFnGcm75Yj7Z799v7p-FwGS6dtlWQ1fpZlDgCpPPk"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.W10.uS_nCW71Wdd6N5cF2woFCFx5tlEerm2KHrI9rSNVNyg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a text
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.ImV4cCI.-XBRuGcKSDpC5yjxDHE2BumfDbFfi9G-QMTdOzBNbdg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: what is not three parts of plain base64url
sub test_shape {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # padding in the payload
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIgfQ==.Ax2Ljz4bGuVZtMfNnLyoUvGSJauNNLDYw9M1VwyKqFM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # loose bits in the payload
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIgfR.2sY2lUeDmV4n0cgTWKXd2LHpJNrTATLWusJwnmaln1k"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # the standard alphabet
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhIjoifn5+Pz8/fn4+PiIsImV4cCI6NDEwMjQ0NDgwMCwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.9y68tFQDrUX7f0JaYAEY67vZ5Zmm6x1HRp3lddy6exA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a header of odd length
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9A.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.hD341mz74x2-3Zkoq2StXIs-wKiJ7CpNidN74RNAfIQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a space in it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJl eHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.m8_iknRR1zWheeANgz62_-kmJKSWK15Rx_c5YfhLRHo"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # padding behind
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY="};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # one sign of padding
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9=.VdXvs90GP8uBCQ1qsJpUKD_EbDs9-7x4Eoj-WFxYzq8"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a letter that is none
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAi!OjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.1FSd6f3pOqbvCwxPxJFMcV4DbZ23BUFKUmf6X1Yc8JA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an escape
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAi%41OjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.uRHhFAuX0A9IN2PoCVBgi32jX-SHlnN2fPz5v_m_fNY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # one letter short
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_Ah"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # one letter more
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhYA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # no signature
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9."};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # two parts
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # one part
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # four parts
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # no header
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer .eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # no payload
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9..yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # dots
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer .."};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a letter
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer x"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # two in one line
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY, Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # something behind
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY x"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # RSA, one letter short
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiogcHVibGlzaDoqIiwic3ViIjoiYm9iIn0.cLrwd_R1SZ3B8YL8EBOFwZXfsV0X3VVI_x99rBHZW2vA5IeoOe2CJljji2VMtmfh0s-azvDz6vBMVyrChojXIYlwub7Yu6_r8BdytKtxhF_EAX0tmvqPr1Lww4ky65vAVC0ZIVvIXUprlNW01UAZmKO2sn8Gu1uPWORLQ-3V8vrelKjSoIJO6olBWmbEkFpYijHzqZt8YVGw7Xexz6kvYYy4DnlvADq1YuvQ6Io0QsLkoEPimrLeR0-aZkLj5DVj5xQKwiaos1Z-ZeHJcXAe0VNcxO019mODSlStH6WX7j-zaBu8E2a4ZUGdPFMhcdyTBuAbL38VUTPZYAH9BOML5"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # RSA, more letters
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiogcHVibGlzaDoqIiwic3ViIjoiYm9iIn0.cLrwd_R1SZ3B8YL8EBOFwZXfsV0X3VVI_x99rBHZW2vA5IeoOe2CJljji2VMtmfh0s-azvDz6vBMVyrChojXIYlwub7Yu6_r8BdytKtxhF_EAX0tmvqPr1Lww4ky65vAVC0ZIVvIXUprlNW01UAZmKO2sn8Gu1uPWORLQ-3V8vrelKjSoIJO6olBWmbEkFpYijHzqZt8YVGw7Xexz6kvYYy4DnlvADq1YuvQ6Io0QsLkoEPimrLeR0-aZkLj5DVj5xQKwiaos1Z-ZeHJcXAe0VNcxO019mODSlStH6WX7j-zaBu8E2a4ZUGdPFMhcdyTBuAbL38VUTPZYAH9BOML5QAA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a letter less
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJeHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # all in capitals
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer EYJHBGCIOIJIUZI1NIISINR5CCI6IKPXVCJ9.EYJLEHAIOJQXMDI0NDQ4MDASINNJB3BLIJOIC3VIC2NYAWJLONNLY3JLDCISINN1YII6IMFUBIJ9.YA-24E5M9QIKZ8OAVX_JU8GNSVMBJJ67OJJZIBZ_AHY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # more than 4096 letters
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInBhZCI6Inh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eCJ9.DAM9EY3y6FXZULvyKx-N3xTxk3Qbza-J20FX5vxBBMk"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # long, but not too long
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInBhZCI6Inh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4In0.woOpiGunvIJ-HfDm60apQa8drEuMi-nkdWhpkr4Nd-8"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: 4096 letters are the most
sub test_length {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # 4096
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6IiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInBhZCI6Inh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4In0.JJG6jLNtpblaztKUTjCuCLNxPN9G9zyXiiw3Htc7tm8"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # 4097
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6IiJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInBhZCI6Inh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eCJ9.KZQ2aRu7OpcR98Lx0t-BFkIHJBsDAe0QrGT1PoxOTBQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: exp counts, with 30 s for clocks that differ
sub test_expiry {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.fixed_time(2000000029);
  # 29 s late
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjIwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.NYrjK95DLXupFA3tZi8e-fX4EFuG2FFCfeSaTM0J4fQ"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  testing.fixed_time(2000000030);
  # 30 s late
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjIwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.NYrjK95DLXupFA3tZi8e-fX4EFuG2FFCfeSaTM0J4fQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(693);
  assert.is_notset(req.http.Authorization);
  testing.fixed_time(2000100000);
  # a day late
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjIwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.NYrjK95DLXupFA3tZi8e-fX4EFuG2FFCfeSaTM0J4fQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(693);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: nbf counts, with 30 s for clocks that differ
sub test_not_before {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.fixed_time(1999999970);
  # 30 s early
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsIm5iZiI6MjAwMDAwMDAwMH0.ehHu__BAqFipO3CVgyqR07-5m0ToH7Y0UQFb5yiceK0"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  testing.fixed_time(1999999969);
  # 31 s early
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsIm5iZiI6MjAwMDAwMDAwMH0.ehHu__BAqFipO3CVgyqR07-5m0ToH7Y0UQFb5yiceK0"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  testing.fixed_time(1995000000);
  # spaces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJuYmYiIDogNDAwMDAwMDAwMCAsImV4cCI6NDEwMjQ0NDgwMCwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.FlRhD-VnTyJvwrwCsN8Xv4d07G3Of6giCsHfDJK-Ywk"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a text with spaces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJuYmYiIDogIjEiICwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.dvRPg-grkl3CnZjcALzpZw9AWQztAtMQchyH7J_Wu9Q"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a text
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsIm5iZiI6IjEiLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.L1MvLjcdsZBGPgwGASuVBep-a8pRFHLdG41u0FenIDE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a fraction
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsIm5iZiI6MS41LCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.fEyJL8hcEyrz4ZXMVgodRwG6n5wAd1GUDJUrF4hcGiw"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # null
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsIm5iZiI6bnVsbCwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.cMeqAA0HKtLDg0Pqio5UrccZyfMKo_NoIKBZcMvibGk"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # very large
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsIm5iZiI6OTk5OTk5OTk5OTk5OTk5OTk5OTk5LCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.O4WnVCqwWMPyzTewvKsfL2apC9fSHpQ5Fd3Pz2-VzUQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: a token that is expired and bad is bad
sub test_expired_only {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # a bad signature
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.W3WYIPnp54hR6__ozyIJoeD4cwmBgAljqEl2_6UtSZE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # not yet good either
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsIm5iZiI6MjAwMDAwMDAwMH0.vQpVU9PShy107faWrHKKWVFoQ5Us4BCXldAwhUOMdj0"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # another channel
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOm90aGVyIn0.aaEUXmWQ9N9-oF4TIMF-NH1wJdg6sAZm-EhcwMhwzow"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: the scope must name the channel to subscribe to
sub test_channels {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # another
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOm90aGVyIn0.sf_9CJSHz_Ip43733c6OHEZuuD00gsDK7CfGwyoL6DE"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # to publish
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoicHVibGlzaDpzZWNyZXQifQ.PqzDFLkblW5yF1POQrP1pPp22BOrJbmqWnw7r6izP8w"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a beginning
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JlIn0.lDc4rbqAeUGOuRq08CnG1fp9cXc2VnUc4L0TygRr0mY"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # more than it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldHMifQ.wJJNiRAL9TjU9tB8JYYSWKVwgJ2nm9hFydRAk3KMaCo"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # another word
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoieHN1YnNjcmliZTpzZWNyZXQifQ.4p6nblRfSCcptFNLDLosx_ezpEzIZeCGCotQPPWBmYA"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # those below
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldC4qIn0.yZawKNt7nQVf8o-eLkNqOIfQLD6cJb23LJKP-ZlEjOo"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # in capitals
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOlNFQ1JFVCJ9.PUOnG-CGU8oiqEY72DVaZilatmwFXiJyzC38yEsFdbI"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a space in it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiBzZWNyZXQifQ.yuZTT0hJqmjWNPmrDV32bj3W3HWO7meZZECtLHwdoBE"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # only the name
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic2VjcmV0In0.su72Vrr-LSzVY4-9BhMReEcAXNCft5I5rHrhWbYApo0"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # nothing
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoiIn0.Oh7FL5VPEiNYed54u4oKz_53mdUPE8MtHKIm6W19t54"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a pattern that is none
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnMqIn0.tPMvqikIgcjRRH2zkN_M3SrVyXgujCIe2B5jF0HSRmw"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a regular expression
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOi4qIn0.BfTZCQ2-YeQnQXmC66lko6PTKV5uE2wVKOoT3Y1V9Jc"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a list with commas
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCxzZWNyZXQyIn0.l49gDkbEgQB2i_4dtcj2IyADJQgZ7eOlKV8EUn7wtpY"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a pattern without a name
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoicHVibGlzaDoqIHN1YnNjcmliZToifQ.cuVUEQ7zojyWzq6L-yO4XfVaCq7o8dtpIOuX_OgfQis"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # another verb
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoiU3Vic2NyaWJlOnNlY3JldCJ9.8XCxEeg2PCzqni7_qNJboxv2y9NLxuSOxeyuJheeHk8"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # no scope
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDB9.hBN0zB9BlHFAc3zuJkJdFTuVpBItfyB3N_A9QL-VPMw"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # another claim
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjcCI6InN1YnNjcmliZTpzZWNyZXQifQ.43JSyidD9_1VR8JpHFFmzO4csgGvyx8st4IhQoZO1AU"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a name that ends in scope
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInhzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.rC58mSduNC7ULoq79Cg6GPCvYsojwrNGi-3DHDMuxYQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # an escaped letter
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JcdTAwNjV0In0.e_4oeVLABfeMrs6SpKTzwwreP5zMLvUIiNJHdTj-PkA"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a sister
  set req.url = "/channels/prices.usd";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy5ldXIifQ.seI1CFKc_ifYHUt0stOmqueoLJ3M7SBQSjp9AHYVWFI"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # its parent
  set req.url = "/channels/prices.usd";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcyJ9.yxaVhtQsm3SqkboygpBI6IOQ9s5WL_jAfvHL-yjHiwc"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a name that ends in a dot
  set req.url = "/channels/prices.";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.nytYtM3oQgGpzxyD08_oBPYcSt4S0l3KzjamsV2ntJw"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # two of those below
  set req.url = "/channels/secret,prices.a,open";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.nytYtM3oQgGpzxyD08_oBPYcSt4S0l3KzjamsV2ntJw"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # those below
  set req.url = "/channels/prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy5ldXIuKiJ9.YOQXAEMeWtzjHIosWLpak0wSkqwJvypeola6sLnYjaU"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a beginning without its dot
  set req.url = "/channels/prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlLioifQ.BlkLqvcXe50JlA6wSnQvrJT4plWsNEgaDGWWuts4lyI"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # half a name
  set req.url = "/channels/prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy5lKiJ9.tcfSGbqG-E_YSF5OyZHL1lbe3QrrpNSz-ZYlrruyheg"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # another word
  set req.url = "/channels/prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoieHN1YnNjcmliZTpwcmljZXMuKiJ9.Xerp1uz29mA9jSc0UWeIafFZ28sTOzDjLFqhnELlwXo"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # more behind the star
  set req.url = "/channels/prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy4qeCJ9.Z54uzHx9Synz60w7lC_u8v5JmZXdkHsmQmRXIKfmWAw"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # two stars
  set req.url = "/channels/prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy4qLioifQ.TBsgtkKwth8wG93SeK9819yLG9JUyGHusAr0OkgyKWI"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # its end
  set req.url = "/channels/prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmljZXMuKiJ9.3UsYWap9JFOYf_y7_wOtkszt6T3wRr5avfma7d-PBr8"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a dot is no wildcard
  set req.url = "/channels/prices.e.r";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy5ldXIifQ.seI1CFKc_ifYHUt0stOmqueoLJ3M7SBQSjp9AHYVWFI"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # nor in the pattern
  set req.url = "/channels/prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlc3hldXIifQ.xOA6C9qtUTlf-IMfCUnTqxQOs1ovENO5MUYU4i4q4wU"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # among others
  set req.url = "/channels/prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoib3BlbmlkIHN1YnNjcmliZTpwcmljZXMuKiB4In0.myeILsmbEuSnItIE-Ug0w4QeUVteztjqJJV74NJf3RY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/prices.eur");
  assert.is_notset(req.http.Authorization);
  # all
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOioifQ.7_jTtJhI3_rRyQWSM0SVWelNvRLWcbcvbtYpZsmibbo"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # those below
  set req.url = "/channels/prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy4qIn0.acA0T27A5IHpTJy03ZWTo8naimNMxUcSBotdhmN5hew"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/prices.eur");
  assert.is_notset(req.http.Authorization);
  # a name that ends in a dot
  set req.url = "/channels/prices.";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy4qIn0.acA0T27A5IHpTJy03ZWTo8naimNMxUcSBotdhmN5hew"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/prices.");
  assert.is_notset(req.http.Authorization);
  # far below
  set req.url = "/channels/prices.eur.usd";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy4qIn0.acA0T27A5IHpTJy03ZWTo8naimNMxUcSBotdhmN5hew"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/prices.eur.usd");
  assert.is_notset(req.http.Authorization);
  # nearer
  set req.url = "/channels/prices.eur.usd";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy5ldXIuKiJ9.YOQXAEMeWtzjHIosWLpak0wSkqwJvypeola6sLnYjaU"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/prices.eur.usd");
  assert.is_notset(req.http.Authorization);
  # itself
  set req.url = "/channels/prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy5ldXIifQ.seI1CFKc_ifYHUt0stOmqueoLJ3M7SBQSjp9AHYVWFI"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/prices.eur");
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: the scope may be a list of strings, each one word
sub test_scope_list {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # one
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZTpzZWNyZXQiXX0.Np1Y76BFJxJHfQT0hSjs3zs3QbrS692iHVh-gKuNz4Y"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # among others
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbIm9wZW5pZCIsInN1YnNjcmliZTphIiwicHVibGlzaDpiIiwic3Vic2NyaWJlOnNlY3JldCJdfQ.xvGN2SyvI97SBWBhhbdAsBvBQCnlI3eB2RGb-mtn-eg"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # the first of several
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZTpzZWNyZXQiLCJzdWJzY3JpYmU6YSJdfQ.wMJDPy_o_Hpos-JnjQOThZUMQvj60ujOQLROzFk2qhQ"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # spaces between
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbICJvcGVuaWQiICwgInN1YnNjcmliZTpzZWNyZXQiIF19.Z6dbEnZGht4zd_vY_4WSlWQpsxlrPwfbX2Wd43Xqs6s"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # spaces before
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIiA6IFsic3Vic2NyaWJlOnNlY3JldCJdIH0.GZrAjmCdCVDwlzdsX0mPzR0UlE1kBk-PNdDUdgK_a5w"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # all
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZToqIl19.OOwEX1GtS2-x4acfMiFWgFazyEYOTisOE6IU7o_iT1k"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # nothing in one of them
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbIiIsInN1YnNjcmliZTpzZWNyZXQiLCIiXX0.MnnGNMvNoeiI32ZuV-0pzWG-AWXnXU5wjAgLwnxdAM4"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # before other claims
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzY29wZSI6WyJzdWJzY3JpYmU6c2VjcmV0Il0sImV4cCI6NDEwMjQ0NDgwMCwic3ViIjoiYW5uIn0.MHwN-weEOcWPt7q98uqljN9Lq5TavwxMDZM397732Vo"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # beside another list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhdWQiOlsiYSIsImIiXSwic2NvcGUiOlsic3Vic2NyaWJlOnNlY3JldCJdLCJsIjpbIngiLDFdLCJleHAiOjQxMDI0NDQ4MDB9.MTLB1Y7pM2o8c8OyWCtv5OzyUo-gzf4XIk6hzdVXh9M"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # one that grants nothing beside one that does
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZToiLCJzdWJzY3JpYmU6c2VjcmV0LHgiLCJzdWJzY3JpYmU6c2VjcmV0Iiwic3Vic2NyaWJlOioqIl19.GqMWseENVEmbwtwVprpluA7VjNGeIWuXsIleP_H6wBY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # another
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZTpvdGhlciJdfQ.FMzPehe_IDgUmD2hS0xQYJE-KfR_AsEnvwJr9Dfl7D4"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # to publish
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInB1Ymxpc2g6c2VjcmV0IiwicHVibGlzaDoqIl19.AWlQ-qBaKKdItsTd5sWLksru4dfWJ8lGTcryqY5FtXM"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # nothing
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbXX0.olPSyzBZX-zERYCoyo3D4mib_N0Zv5oBAs3OvzLriC0"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # nothing but a space
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbIF19.U2ToiWw1NyHMkS6WVxmkSeKIim-rHqnEaod71G1vNd4"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # an empty one
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbIiJdfQ.KDkVltjLp1B_BqgyscjbFAdSDrEUTUFCxyPQXlFH0_g"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # one word in two
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZToiLCJzZWNyZXQiXX0.vVV3ziuPPM4vU_TbV6dWrs2TSVR3EBnKV_xKRKGpdj0"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # one word in two, without a colon
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZSIsInNlY3JldCJdfQ.H7gWns_1WppTgBlrUf2j7wrVQGJMhKe6FEtqX7_iRsY"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # several words in one
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbIm9wZW5pZCBzdWJzY3JpYmU6c2VjcmV0Il19.M1X6g6bXIWhJG-5KmSGseA9Hdxo1s41JLJgyXEZKVVE"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # several words in one of two
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbIm9wZW5pZCAgZW1haWwiLCJzdWJzY3JpYmU6c2VjcmV0Il19.cA7Nb-GkwuPddiR0TLTETFCs4XhWkNO0jvka7ONucUg"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # several words in the last
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbIm9wZW5pZCIsICJhIHN1YnNjcmliZTpzZWNyZXQgYiJdfQ.1YfdJIFW2u3qUYphD1QgNi1E7aJbxzepPBHvdaxoXBM"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # a comma and a space in one
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbIngsIHN1YnNjcmliZTpzZWNyZXQiXX0.x6MI7gWlnyGwu7jxMREbKymWuF-7hB7j0gZzLVxKTPc"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # commas in between
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbIiwiLCJzdWJzY3JpYmU6c2VjcmV0IiwiLCAsIl19.Zv73H1gizaX1VV26rFZ9PFeyNa2KzFZ49LuUgOoNq80"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # commas that only look like the end of one
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbIiAsICwiLCJzdWJzY3JpYmU6b3RoZXIiXX0.L5nSDBoBhSwq5t1n5YYvVx7-d1KNztiZMdKzne8C_sA"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # half a word before a comma
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZTpzZWNyZXQsIHgiXX0.dAc6avFBl7O0P5FOiUx3LlSBdlUQlngrdwvC7QCMoaw"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a comma in one
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbIngsc3Vic2NyaWJlOnNlY3JldCJdfQ.Or_LZoeSEbsyYqDq3vsuYBkzQVX7BiV14mSo4dj3JXY"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a comma behind it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZTpzZWNyZXQseCJdfQ.KWI-98Q_xbFRFa3ZawKTK88gsObU3Ji6gcv0AL_US2g"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # an escape
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZTpzZWNyXHUwMDY1dCJdfQ.YWpgaCDZEllnVG2y8YHcdhDzkzmDYEpr4VwjbU7Uukw"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # an escape in another
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbImFcL2IiLCJzdWJzY3JpYmU6c2VjcmV0Il19.D-UUbB5kb11XG106PSO_ifkLfn_qIb-aKC3TK_453vQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # an escaped quote
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbIlwic3Vic2NyaWJlOnNlY3JldFwiIl19.M5U5e4qziwzVsfheIN22OVZxeZEFrFG5URwxkHgZuO4"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a list in a string
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoiW3N1YnNjcmliZTpzZWNyZXRdIn0.EirJSlteVrVLAvGgiXs0CR9ZT1AS9bw5aChaAKkbw6k"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a list in an escaped string
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoiW1wic3Vic2NyaWJlOnNlY3JldFwiXSJ9.4kk6O6LjwXI7Qb2QLvrI0wxlVppqU9ChHcu1Otjm8_w"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # another claim
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlcyI6WyJzdWJzY3JpYmU6c2VjcmV0Il19.mrwJVicFf3qWSxcf6-rMn4HV8lj9NvlZyA7AhbLKtzU"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a name that ends in scope
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInhzY29wZSI6WyJzdWJzY3JpYmU6c2VjcmV0Il19.2zIU1UwKJh9uCr19x8edcQN0dKcs1SfRBzC788WRBdo"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # in a string
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsImEiOiJcInNjb3BlXCI6W1wic3Vic2NyaWJlOnNlY3JldFwiXSJ9.Wh6D5FVGWlDXJk97k7MHMxmF2QsPIWj6uX8xvn1FBlU"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # null
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpudWxsfQ.3KtJKb5U_-P8dMFJ2sQFFZIVmW4GafMD9sHrL_XwZjc"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: each private name needs a word of the list
sub test_scope_list_many {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # both
  set req.url = "/channels/secret,prices.eur,open";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZTpzZWNyZXQiLCJzdWJzY3JpYmU6cHJpY2VzLioiXX0.TO41_iUhKvUtryYS9EXV2xmf2gDOC1cmL254QXj2bE4"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret,prices.eur,open");
  assert.is_notset(req.http.Authorization);
  # one of two
  set req.url = "/channels/secret,prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZTpzZWNyZXQiXX0.Np1Y76BFJxJHfQT0hSjs3zs3QbrS692iHVh-gKuNz4Y"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: a scope of another type is a mistake of the issuer
sub test_scope_kinds {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # a number
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoxfQ.TOYqKy4EwJC-rPbY9SluWaiXfc0-CPQlKLouRIMzwUI"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # true
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjp0cnVlfQ.IsT3czrCbcQBneTLdOJYH_usCpE8DtEo__JLS7haoyY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # false
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpmYWxzZX0.GgWxrM6Xne4ecnMuyKPnAmKoqn_74qTWVES6T0J4fbA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a number in a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbMV19.4sXkYiB8H5PA9t4rD1OmEBQHis0oU2N77OLUxbGau54"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a number before a string
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbMSwic3Vic2NyaWJlOnNlY3JldCJdfQ.7CHhLervgjYSK6IR-_JXBMVbkDai3EKxDw15GQ8S9DE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a number behind a string
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZTpzZWNyZXQiLDFdfQ.CL3-fgOf5GT9cVX9TvQuEbQ7VzXvUWtXsptBfOgiEIk"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a number between, with spaces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZTpzZWNyZXQiICwgLTEgLCAiYSJdfQ.7mGJDevcd5nRuSQ3_xWsWcZv7hkXHW2Cil_Y8BZCevo"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a list in a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbWyJzdWJzY3JpYmU6c2VjcmV0Il1dfQ.6uWgudS2Z84_vPlERJSI-AdTxFudUb9TbIPpA_uInUk"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # null in a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZTpzZWNyZXQiLG51bGxdfQ.ghRybinr01eqSnLQBJjOWX__tr4clj9LB3yMSs0NukQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an object
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjp7InN1YnNjcmliZSI6InNlY3JldCJ9fQ.NeLScAjeD5CzsjfiE1agv9FPBvIKmvjzhyoczD6EBBE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # twice, once as a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjpbInN1YnNjcmliZTpzZWNyZXQiXSwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.eUp0XGOw2VkGLtIvHRBndMB1-VuMedTRLk4nGz24oDw"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # spaces before a number
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIiA6ICAxIH0.Mik6m4mavcEfJks71eBWguqOMKk70sRIsPiqoGpEz8I"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: the subject is a string or not there
sub test_subject {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # a string
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # an empty string
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6IiJ9.dFe_ohubOxSaw3SfVcCBRZc7l_2Y6jeaJ6RQJE3xx54"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # null
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6bnVsbH0.qHERXA4cCR0IetsL8TDVjOxw2EGX6V7fLVfyvcSiIFw"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # spaces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiIgOiAgImFubiIgfQ.D2ccEAi_tviO0pia8pII-Jy1VIepC5yACl0k1qNoRXw"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # an escape
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFcImIifQ.uSzt7oK1j3JT5-tT9yhbc-xNojaIHtRDYvjsqqXrXho"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # a name that ends in it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInhzdWIiOjQyfQ.k4g0kjavwsssWBGrkCyHxa06lDdzAIUeb5BksCYDqIk"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # a name that begins with it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YnMiOjQyfQ.15D66TfpBdZ3sWffZjBzUkjKWz6yUrdQ6KW0845o8OM"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # the name as a value
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImEiOiJzdWIiLCJiIjo0Mn0.7OdTTq9MYbDUBf4J7_yFGS8ictTj6UfYjOJtw3iHx0U"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # the name in a string
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImEiOiJcInN1YlwiOjQyIn0.jz_PBIedFvaFdmif201tSaHTdmHYPuf0Ota65Q5w9Mg"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # a number
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6NDJ9.PDI5g2L0oWnxC86SbYw7hA_HIncNEeoB13MjElID_Io"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a number behind spaces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiIgOiAgNDIgfQ.LA4DdPcp4z0wQpe4Wj6VhTO8p1FlX98eUwz6tSYgEwU"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a negative number
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6LTF9.WQ79x9iq4bhCiDPev97V4T61C_kDF6TSyVkedftaJrs"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # true
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6dHJ1ZX0.Eqvis9s5FhN0KUAEgNgy1Jjc4LCWGoiFp0t-hpku048"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # false
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ZmFsc2V9.LBgqTOVX7Ewg7uJviIYOZUU-lph7T75Gx4E41BQsxTI"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6WyJhbm4iXX0.J4Awrdcbko7D9vAsLrv3qAeBqfx0tr8cAx9iAhFqMtE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an empty list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6W119.pxqRPILWUsmOsPICZ0aF3Io8Ga9x3kmhZ50i38UMQpk"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an object
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6eyJhIjoiYiJ9fQ.nJn53wiTO_eIVupZ727_hO22clUCqpZLynljv5fmO5w"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # first of all claims
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOjQyLCJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.U1lRcmrytBEKJcJ4bQLqQonZJ2kyBIENw5h8AM5joLA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # twice
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiIsInN1YiI6ImFubiJ9.mvd6bXFXdiycfTzha5ZJyRr9453aOimq_lpIcxTsu9o"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # twice, once null
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInN1YiI6bnVsbCwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0Iiwic3ViIjoiYW5uIn0.y0G1jzEJWTBRhh2plCdNShuYimabjeefRem7S7dk9Ho"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a number, and expired
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6NDJ9.LLMgXcdoBLh2b5Qa9pOxl0bCRIjisDzCN5Rqe6YyCc0"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: every private name of a list must be covered
sub test_lists {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # one of two
  set req.url = "/channels/secret,prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.nytYtM3oQgGpzxyD08_oBPYcSt4S0l3KzjamsV2ntJw"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # the other order
  set req.url = "/channels/prices.eur,secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.nytYtM3oQgGpzxyD08_oBPYcSt4S0l3KzjamsV2ntJw"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # only the public one
  set req.url = "/channels/open,secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOm9wZW4ifQ.skJdHqE3Ed2sut6MoAVz77q1bdo8a-Lk9Zi1GyMS_Xk"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # only the public one
  set req.url = "/channels/secret,open";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOm9wZW4ifQ.skJdHqE3Ed2sut6MoAVz77q1bdo8a-Lk9Zi1GyMS_Xk"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # only those below
  set req.url = "/channels/prices.eur,secret,prices.usd";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy4qIn0.acA0T27A5IHpTJy03ZWTo8naimNMxUcSBotdhmN5hew"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a list as one name
  set req.url = "/channels/open,prices.eur,secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy4qIn0.acA0T27A5IHpTJy03ZWTo8naimNMxUcSBotdhmN5hew"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # the last of eight
  set req.url = "/channels/a,b,c,d,e,f,g,prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEgc3Vic2NyaWJlOnNlY3JldCJ9.G2lRsRf_dnL_CQzlrBo14Zdp-nABYqLVnYT_ZKP7bmM"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # both
  set req.url = "/channels/secret,prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCBzdWJzY3JpYmU6cHJpY2VzLmV1ciJ9.zWFthxBmwQZMA_d-F7Db8aJMEHyHhESd9NzLmOQkXWw"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret,prices.eur");
  assert.is_notset(req.http.Authorization);
  # the others are public
  set req.url = "/channels/open,secret,other,prices";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.nytYtM3oQgGpzxyD08_oBPYcSt4S0l3KzjamsV2ntJw"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/open,secret,other,prices");
  assert.is_notset(req.http.Authorization);
  # the other is public
  set req.url = "/channels/secret,secretx";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.nytYtM3oQgGpzxyD08_oBPYcSt4S0l3KzjamsV2ntJw"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret,secretx");
  assert.is_notset(req.http.Authorization);
  # all three
  set req.url = "/channels/prices.eur,secret,prices.usd";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy4qIHN1YnNjcmliZTpzZWNyZXQifQ.AcDXn9K87BbkdJXhyH7ti83QXXUYY0ZpCGOQZoiWSMc"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/prices.eur,secret,prices.usd");
  assert.is_notset(req.http.Authorization);
  # all
  set req.url = "/channels/secret,prices.eur,open";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOioifQ.7_jTtJhI3_rRyQWSM0SVWelNvRLWcbcvbtYpZsmibbo"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret,prices.eur,open");
  assert.is_notset(req.http.Authorization);
  # an escaped comma
  set req.url = {"/channels/open%2Csecret"};
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOm9wZW4ifQ.skJdHqE3Ed2sut6MoAVz77q1bdo8a-Lk9Zi1GyMS_Xk"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: every place in the list of private channels counts
sub test_lists_places {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater, "private", "a, b, prices.*, news.*");
  # the second
  set req.url = "/channels/a,b";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEifQ.KOtDcVQ7jGr_T68Z4Y4600EstigMEc09LSX_ZFJRzv4"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # the third
  set req.url = "/channels/a,prices.x";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEifQ.KOtDcVQ7jGr_T68Z4Y4600EstigMEc09LSX_ZFJRzv4"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # the last
  set req.url = "/channels/news.x,a";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEifQ.KOtDcVQ7jGr_T68Z4Y4600EstigMEc09LSX_ZFJRzv4"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # none of them
  set req.url = "/channels/a,c,news";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEifQ.KOtDcVQ7jGr_T68Z4Y4600EstigMEc09LSX_ZFJRzv4"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/a,c,news");
  assert.is_notset(req.http.Authorization);
  testing.table_set(headwater, "private", "*");
  # another
  set req.url = "/channels/b";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEifQ.KOtDcVQ7jGr_T68Z4Y4600EstigMEc09LSX_ZFJRzv4"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # one of two
  set req.url = "/channels/a,b";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEifQ.KOtDcVQ7jGr_T68Z4Y4600EstigMEc09LSX_ZFJRzv4"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # the other order
  set req.url = "/channels/b,a";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEifQ.KOtDcVQ7jGr_T68Z4Y4600EstigMEc09LSX_ZFJRzv4"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # one below
  set req.url = "/channels/a,b.c";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEifQ.KOtDcVQ7jGr_T68Z4Y4600EstigMEc09LSX_ZFJRzv4"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # itself
  set req.url = "/channels/a";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEifQ.KOtDcVQ7jGr_T68Z4Y4600EstigMEc09LSX_ZFJRzv4"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/a");
  assert.is_notset(req.http.Authorization);
  testing.table_set(headwater, "private", "a, xprices.*");
  # a pattern that only ends like it
  set req.url = "/channels/a,prices.x";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEifQ.KOtDcVQ7jGr_T68Z4Y4600EstigMEc09LSX_ZFJRzv4"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/a,prices.x");
  assert.is_notset(req.http.Authorization);
  testing.table_set(headwater, "private", "x;y");
  # a slip in the list
  set req.url = "/channels/a,b";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEifQ.KOtDcVQ7jGr_T68Z4Y4600EstigMEc09LSX_ZFJRzv4"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a slip in the list
  set req.url = "/channels/a";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEifQ.KOtDcVQ7jGr_T68Z4Y4600EstigMEc09LSX_ZFJRzv4"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/a");
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: history and state are given to the same readers
sub test_history {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # history
  set req.url = "/channels/secret/history";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.nytYtM3oQgGpzxyD08_oBPYcSt4S0l3KzjamsV2ntJw"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret/history");
  assert.is_notset(req.http.Authorization);
  # state
  set req.url = "/channels/secret/state";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.nytYtM3oQgGpzxyD08_oBPYcSt4S0l3KzjamsV2ntJw"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret/state");
  assert.is_notset(req.http.Authorization);
  # another channel
  set req.url = "/channels/secret/history";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngifQ.9cXe2KHmAkhYHygRr8FzYgnY05bVerzwswLfQU5cWLQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # expired
  set req.url = "/channels/secret/state";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rPhHm4ct_EWSjg5bbXJ7HCJGZLmRPutmlh6_C9imhCc"};
  testing.call_subroutine("vcl_recv");
  assert.error(693);
  assert.is_notset(req.http.Authorization);
  set req.url = "/channels/secret/history";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
}

// @scope: recv
// @suite: without a token a private channel is closed to every kind of reader
sub test_missing {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.method = "HEAD";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.method = "GET";
  set req.http.Headwater-Access = "edge /channels/secret";
  set req.http.Headwater-Edge-Auth = "edge-secret-for-tests";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Headwater-Edge-Auth);
  set req.http.Authorization = "Basic YTpi";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.http.Authorization = {"Token eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.http.Authorization = {"XBearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.http.Authorization = {"BearereyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.http.Authorization = "Bearer ";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.http.Authorization = {"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
}

// @scope: recv
// @suite: a token is taken from the header, else from the query, else from the cookie
sub test_sources {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Authorization = {"bearer  eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # the header before the others
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rPhHm4ct_EWSjg5bbXJ7HCJGZLmRPutmlh6_C9imhCc"};
  testing.call_subroutine("vcl_recv");
  assert.error(693);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngifQ.9cXe2KHmAkhYHygRr8FzYgnY05bVerzwswLfQU5cWLQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # the query before the cookie
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rPhHm4ct_EWSjg5bbXJ7HCJGZLmRPutmlh6_C9imhCc"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rPhHm4ct_EWSjg5bbXJ7HCJGZLmRPutmlh6_C9imhCc"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(693);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngifQ.9cXe2KHmAkhYHygRr8FzYgnY05bVerzwswLfQU5cWLQ"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # the cookie alone
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # a header of another kind is no token, nor is an empty parameter
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  set req.http.Authorization = {"Basic YTpi"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token="};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=&x=1"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  set req.http.Authorization = {"Basic YTpi"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  set req.http.Authorization = {"Basic YTpi"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # the first of several parameters, also when it is empty
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?x=1&access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY&access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=&access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=&access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token&access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM&access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # names that only look like it
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"xheadwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"headwater2=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"Headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"a=headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"water=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"h=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"headwater|; water=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?xaccess_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret?Access_token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  # cookies with and without spaces, quotes never
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"a=b;headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY;c=d"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"a=b;  headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY ; c=d"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"headwater="eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY""};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
}

// @scope: recv
// @suite: of two cookies of the name the first good one counts
sub test_cookies {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # the first is good
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # the second is good, the first is forged
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # expired
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rPhHm4ct_EWSjg5bbXJ7HCJGZLmRPutmlh6_C9imhCc; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # for another channel
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngifQ.9cXe2KHmAkhYHygRr8FzYgnY05bVerzwswLfQU5cWLQ; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # empty
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # no token at all
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=x y; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # in quotes
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater="eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # others between, with and without spaces
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"a=b; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM;c=d;headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY ;e=f"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # others between that only look like it
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; xheadwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater2=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # both are good
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  # one that is bad
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # both are bad
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # the second only looks like it
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; xheadwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; a=headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; Headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater="};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # the answer is for one that is expired, else for the first
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rPhHm4ct_EWSjg5bbXJ7HCJGZLmRPutmlh6_C9imhCc; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  testing.call_subroutine("vcl_recv");
  assert.error(693);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rPhHm4ct_EWSjg5bbXJ7HCJGZLmRPutmlh6_C9imhCc"};
  testing.call_subroutine("vcl_recv");
  assert.error(693);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rPhHm4ct_EWSjg5bbXJ7HCJGZLmRPutmlh6_C9imhCc; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngifQ.9cXe2KHmAkhYHygRr8FzYgnY05bVerzwswLfQU5cWLQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(693);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngifQ.9cXe2KHmAkhYHygRr8FzYgnY05bVerzwswLfQU5cWLQ; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rPhHm4ct_EWSjg5bbXJ7HCJGZLmRPutmlh6_C9imhCc"};
  testing.call_subroutine("vcl_recv");
  assert.error(693);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rPhHm4ct_EWSjg5bbXJ7HCJGZLmRPutmlh6_C9imhCc; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjEwMDAwMDAwMDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.rPhHm4ct_EWSjg5bbXJ7HCJGZLmRPutmlh6_C9imhCc"};
  testing.call_subroutine("vcl_recv");
  assert.error(693);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngifQ.9cXe2KHmAkhYHygRr8FzYgnY05bVerzwswLfQU5cWLQ; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngifQ.9cXe2KHmAkhYHygRr8FzYgnY05bVerzwswLfQU5cWLQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngifQ.9cXe2KHmAkhYHygRr8FzYgnY05bVerzwswLfQU5cWLQ; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngifQ.9cXe2KHmAkhYHygRr8FzYgnY05bVerzwswLfQU5cWLQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  assert.is_notset(req.http.Authorization);
  # a third is not read
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: what the client itself says of them counts nowhere
sub test_cookies_forged {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.http.Headwater-Access = "expired";
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  set req.http.Headwater-Access = "forbidden";
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  set req.http.Headwater-Access = "expired";
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  set req.http.Headwater-Access = "edge /channels/secret";
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  set req.http.Headwater-Access = "granted";
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngifQ.9cXe2KHmAkhYHygRr8FzYgnY05bVerzwswLfQU5cWLQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: the cookie has the name that was set
sub test_cookie_name {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater, "cookie_name", "__Host-t.k");
  set req.url = "/channels/secret";
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"a=b; __Host-t.k=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"__Host-tXk=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"__Host-t.k=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; __Host-t.k=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  assert.is_notset(req.http.Cookie);
  assert.is_notset(req.http.Authorization);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = {"/channels/secret"};
  set req.http.Cookie = {"__Host-t.k=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM; headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  testing.table_set(headwater, "cookie_name", "");
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
}

// @scope: recv
// @suite: the issuer is checked where one is set
sub test_issuer {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater, "jwt_issuer", "https://id.example");
  # itself
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImlzcyI6Imh0dHBzOi8vaWQuZXhhbXBsZSJ9.7z6ZQ4yPILj-f8HFyxF1iPrr26EslZi4gYStzkh-Igo"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # before others, with spaces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiIDogImh0dHBzOi8vaWQuZXhhbXBsZSIsImV4cCI6NDEwMjQ0NDgwMCwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.XFSPd6l2eEied3ABvYSeCCwG9i5RCKSTeCyVLIlbNxY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # none
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a name that ends in iss
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInhpc3MiOiJodHRwczovL2lkLmV4YW1wbGUifQ.5DHRwuil8G4vLSzin4HM068uLpoi0PH-ljoCI363C2o"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # more
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImlzcyI6Imh0dHBzOi8vaWQuZXhhbXBsZS8ifQ.2-ZvgvrcSYbdB6VwZUYyciFXvg7CnfxgNdvtw7J4WZY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # less
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImlzcyI6Imh0dHBzOi8vaWQuZXhhbXBsIn0.UfFcaPDiEE3E-3Pkea8u9C7DyXCkFq7CqDYpN8UuCFo"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImlzcyI6WyJodHRwczovL2lkLmV4YW1wbGUiXX0.dYo5fsK-PoDLDQ2WLYSaspWxZwhPOQxSxscUZ2MOzK8"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # another claim
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6Imh0dHBzOi8vaWQuZXhhbXBsZSJ9.7XV0QY2PJm8dg5IvNqgqZIOuLtyyAsYzh7EV2_3axAw"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # nothing
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImlzcyI6IiJ9.s0c2HCWgKWpfuNrAVuNRwWQCFfJKgYk7C3Xx9WC46vE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: the audience is checked where one is set
sub test_audience {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater, "jwt_audience", "events");
  # itself
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6ImV2ZW50cyJ9.SpA6CTt2Manv78FeWYNZcYTx9gwVgrec3SLBzjOuAIE"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # before others, with spaces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhdWQiIDogImV2ZW50cyIsImV4cCI6NDEwMjQ0NDgwMCwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.rYiiJIYQYLE2rMwaXGr42_K7tymJYC8Rix1o500oc_g"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6WyJldmVudHMiXX0.r9l5mcTRJLBUuuqyhkCX8UWdSRCCzgPKQsekgFu4XRk"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # among others
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6WyJhcGkiLCJldmVudHMiLCJ4Il19.lGQPcB3amEyZAfiWYx1Wic3B5I1WtEvtH5MFNyao7AY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # behind nothing
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6WyIiLCJldmVudHMiXX0.bZFq8MHNM-BRvcNLWj17Etv4ePqrtVazjReaH0hHsUw"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # spaces
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhdWQiOlsgImEiICwgImV2ZW50cyIgXSwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6InN1YnNjcmliZTpzZWNyZXQifQ.PFx1pAc2Kt05S4Hjek8cHp1kiKdGNnG0BTjMZmWWD50"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Authorization);
  # none
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a name that ends in aud
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInhhdWQiOiJldmVudHMifQ.EDnvLgwWuFRJk_VrvEEUoCdVwEygG2yi9wgGJcaLP-Q"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # less
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6ImV2ZW50In0.SKIXlqqRCKXnjVetUqPpGSAack6ExYuqqmtHjBQxzso"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # less before it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6InZlbnRzIn0.YwPlR4xhtDR34uHqFuu-E5aH2lDaS8OG8cBqNKjRxZo"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # less before it in a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6WyJ2ZW50cyJdfQ.Ug3raFzIdvaVpy3DP7mFcLzdter6qxpw81gK0jnFQJg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # nothing
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6IiJ9.2jMGhlHYL5btDoMTLNR_BtIaIrzDDUqVgiLLwEgi1x8"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # more
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6ImV2ZW50czIifQ.ImpxQ0X3LX5yvmjuiStrbI7O-cA_OlTx0Xf61m9PPN0"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # more before it
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6InhldmVudHMifQ.QFsm667BKWMsIQPjilsJvp-wUdbJbyd2lZvjkr5fi24"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # others
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6WyJhcGkiXX0.eJsrmk3c5yAW1ASKlyijDowpgC9oPSSr0M1K_B5DVUw"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # an empty list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6W119.74agQYl30DNi2EjLUnzAFUpAjpx1ZkTvR5C970RwZpc"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # more in a list
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6WyJhcGkiLCJ4ZXZlbnRzIl19.QmLUKo4t3DaBnK6OQe1ojuboObImPcWJfsdwRlzyJTQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # a number
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6MX0.gCrVuQCDoWlKL7LkllIYtGg_tQ-X145Ir5t_yEaJNFg"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # behind an escaped quote
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhdWQiOlsiYVwiZXZlbnRzIl0sImV4cCI6NDEwMjQ0NDgwMCwic2NvcGUiOiJzdWJzY3JpYmU6c2VjcmV0In0.Qvmb7XbX9W_oE7dMGyxjye3Ha3MHBaK6M8tE-Ml3EwA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  # another claim
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImV2ZW50cyJ9.fU3zNdsN881D-hmtL4iOc9z6DhtsrWYu3itXNbAsCCc"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  testing.table_set(headwater, "jwt_audience", ",");
  # what stands between two
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6WyJhIiwiYiJdfQ.18rlLD4tnvBeCV-t1NNv2Ij1Kwo4JmfzgpQa-LjvIDA"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
  testing.table_set(headwater, "jwt_audience", ".*");
  # not a pattern
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsImF1ZCI6IngifQ.-qn1DDiDqBcgoufdHy5bJcDOLAPiq2h0ECO_ELZAKoE"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: a public channel needs no token and drops one, good or bad
sub test_public {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/open";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.http.Authorization = {"Bearer x"};
  set req.url = "/channels/open,other?access_token=x";
  set req.http.Cookie = {"headwater=x"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  assert.equal(req.url, "/channels/open,other");
  assert.is_notset(req.http.Cookie);
  set req.url = "/channels/prices";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/secret2";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/secre";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/secret.a";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/xprices.eur";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/pricesx.eur";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/PRICES.eur";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/a.prices.eur";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/open/history";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
}

// @scope: recv
// @suite: the list of private channels takes commas, spaces and the three kinds of patterns
sub test_patterns {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater, "private", "");
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  testing.table_set(headwater, "private", "*");
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/a.b";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/a,b";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/a/state";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  testing.table_set(headwater, "private", "a,b");
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/b";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/c,b";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/b,c";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/c";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/ab";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/a.b";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  testing.table_set(headwater, "private", "a b.*,  c");
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/b.x";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/b.x.y";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/c";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/x,y,b.x";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/b.x,q";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/b.x,q,z";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/b";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/bx";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/d";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  testing.table_set(headwater, "private", " a , ");
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/b";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  testing.table_set(headwater, "private", "a.b.*");
  set req.url = "/channels/a.b.c";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/a.b";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/a.c";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/axb.c";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  testing.table_set(headwater, "private", "a.b");
  set req.url = "/channels/a.b";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/axb";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  testing.table_set(headwater, "private", ",");
  set req.url = "/channels/a";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  testing.table_set(headwater, "private", "prices.*");
  set req.url = "/channels/prices.";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  testing.table_set(headwater, "private", "xprices.*, a_b~c-d.e");
  set req.url = "/channels/a_b~c-d.e";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.url = "/channels/prices.eur";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/other";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/open,x,open";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
  set req.url = "/channels/a.b,a.b";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.is_notset(req.http.Authorization);
  assert.false(req.hash_always_miss);
}

// @scope: recv
// @suite: a slip in the list of private channels makes all of them private
sub test_patterns_bad {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater, "private", "a*");
  set req.url = "/channels/other";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  testing.table_set(headwater, "private", "*.a");
  set req.url = "/channels/other";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  testing.table_set(headwater, "private", "a.*.b");
  set req.url = "/channels/other";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  testing.table_set(headwater, "private", "a;b");
  set req.url = "/channels/other";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  testing.table_set(headwater, "private", "^a");
  set req.url = "/channels/other";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  testing.table_set(headwater, "private", "a.*x");
  set req.url = "/channels/other";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  testing.table_set(headwater, "private", ".a");
  set req.url = "/channels/other";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  testing.table_set(headwater, "private", "a\\b");
  set req.url = "/channels/other";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  testing.table_set(headwater, "private", "a|b");
  set req.url = "/channels/other";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  testing.table_set(headwater, "private", "prices.**");
  set req.url = "/channels/other";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
}

// @scope: recv
// @suite: what is private and not verified here is the origin's to judge, with all that the client sent
sub test_unset {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater_secrets, "edge_auth", "");
  set req.url = {"/channels/secret?x=1&access_token=a.b%2E&mode=hold"};
  set req.http.Cookie = {"headwater=x; a=b"};
  set req.http.Authorization = {"Bearer x"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "origin");
  assert.equal(req.http.Authorization, "Bearer x");
  assert.equal(req.http.Cookie, "headwater=x; a=b");
  assert.equal(req.url, {"/channels/secret?mode=hold&access_token=a.b%2E"});
  assert.true(req.hash_always_miss);
  assert.true(req.hash_ignore_busy);
  unset req.http.Authorization;
  set req.url = "/channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "origin");
  assert.true(req.hash_always_miss);
  assert.true(req.hash_ignore_busy);
}

// @scope: recv
// @suite: without a credential it is passed as well
sub test_unset_none {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater_secrets, "edge_auth", "");
  set req.url = "/channels/secret/history";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "origin");
  assert.true(req.hash_always_miss);
  assert.true(req.hash_ignore_busy);
}

// @scope: recv
// @suite: only a parameter of that name is the origin's token
sub test_unset_query {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater_secrets, "edge_auth", "");
  set req.url = "/channels/secret?xaccess_token=a";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/secret");
  set req.url = "/channels/secret?access_token2=a";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/secret");
  set req.url = "/channels/secret?access_token";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/secret");
  set req.url = "/channels/secret?a=access_token=b";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/secret");
}

// @scope: recv
// @suite: without a key there is nothing to verify by
sub test_unset_keys {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater_secrets, "jwt_hs256_secret", "");
  testing.table_set(headwater_secrets, "jwt_rs256_key", "");
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.bnJ1cUoCzWcqrzSMOFgfo9huPpyslLG7Kw2O3caDvkE"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "origin");
  assert.match(req.http.Authorization, "^Bearer .");
  assert.true(req.hash_always_miss);
  set req.url = "/channels/open";
  testing.call_subroutine("vcl_recv");
  assert.match(req.http.Authorization, "^Bearer .");
  assert.is_notset(req.http.Headwater-Access);
  set req.url = "/channels/open?access_token=x";
  unset req.http.Authorization;
  testing.call_subroutine("vcl_recv");
  assert.equal(req.url, "/channels/open");
}

// @scope: recv
// @suite: a secret that is too short counts as none
sub test_short_only {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater_secrets, "jwt_hs256_secret", "short");
  testing.table_set(headwater_secrets, "jwt_rs256_key", "");
  set req.url = "/channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Access, "origin");
}

// @scope: recv
// @suite: a client's own marks count nowhere
sub test_forged_marks {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.method = "GET";
  set req.url = "/channels/open";
  set req.http.Headwater-Edge-Auth = "edge-secret-for-tests";
  set req.http.Headwater-Access = "edge /channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Edge-Auth);
  assert.is_notset(req.http.Headwater-Access);
  set req.method = "GET";
  set req.url = "/app";
  set req.http.Headwater-Edge-Auth = "edge-secret-for-tests";
  set req.http.Headwater-Access = "edge /channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Edge-Auth);
  assert.is_notset(req.http.Headwater-Access);
  set req.method = "POST";
  set req.url = "/channels/secret";
  set req.http.Headwater-Edge-Auth = "edge-secret-for-tests";
  set req.http.Headwater-Access = "edge /channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Edge-Auth);
  assert.is_notset(req.http.Headwater-Access);
  set req.method = "GET";
  set req.url = "/ws";
  set req.http.Headwater-Edge-Auth = "edge-secret-for-tests";
  set req.http.Headwater-Access = "edge /channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Edge-Auth);
  assert.is_notset(req.http.Headwater-Access);
}

// @scope: recv
// @suite: a publish keeps its token
sub test_publish {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.method = "POST";
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer x"};
  set req.http.Cookie = {"headwater=x"};
  testing.call_subroutine("vcl_recv");
  assert.state(pass);
  assert.equal(req.http.Authorization, "Bearer x");
  assert.equal(req.http.Cookie, "headwater=x");
}

// @scope: recv
// @suite: as shipped no channel is private
sub test_off {
  set req.url = "/channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  assert.false(req.hash_always_miss);
  set req.http.Authorization = {"Bearer x"};
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Authorization, "Bearer x");
  assert.true(req.hash_always_miss);
}

// @scope: miss
// @suite: only what was verified carries the secret, in vcl_miss
sub test_secret_miss {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "edge /channels/secret";
  set bereq.http.Headwater-Access = "edge /channels/secret";
  set bereq.http.Headwater-Edge-Auth = "forged";
  testing.call_subroutine("vcl_miss");
  assert.state(fetch);
  assert.equal(bereq.http.Headwater-Edge-Auth, "edge-secret-for-tests");
  assert.is_notset(bereq.http.Headwater-Access);
  set req.http.Headwater-Access = "origin";
  set bereq.http.Headwater-Access = "x";
  set bereq.http.Headwater-Edge-Auth = "forged";
  testing.call_subroutine("vcl_miss");
  assert.state(pass);
  assert.is_notset(bereq.http.Headwater-Edge-Auth);
  assert.is_notset(bereq.http.Headwater-Access);
  unset req.http.Headwater-Access;
  set bereq.http.Headwater-Access = "x";
  set bereq.http.Headwater-Edge-Auth = "forged";
  testing.call_subroutine("vcl_miss");
  assert.state(fetch);
  assert.is_notset(bereq.http.Headwater-Edge-Auth);
  assert.is_notset(bereq.http.Headwater-Access);
  set req.http.Headwater-Access = "unauthorized";
  set bereq.http.Headwater-Access = "x";
  set bereq.http.Headwater-Edge-Auth = "forged";
  testing.call_subroutine("vcl_miss");
  assert.state(fetch);
  assert.is_notset(bereq.http.Headwater-Edge-Auth);
  assert.is_notset(bereq.http.Headwater-Access);
  set req.http.Headwater-Access = "xedge ";
  set bereq.http.Headwater-Access = "x";
  set bereq.http.Headwater-Edge-Auth = "forged";
  testing.call_subroutine("vcl_miss");
  assert.state(fetch);
  assert.is_notset(bereq.http.Headwater-Edge-Auth);
  assert.is_notset(bereq.http.Headwater-Access);
  unset req.http.Headwater-Path;
  set req.http.Headwater-Access = "edge /app";
  set bereq.http.Headwater-Access = "x";
  set bereq.http.Headwater-Edge-Auth = "forged";
  testing.call_subroutine("vcl_miss");
  assert.is_notset(bereq.http.Headwater-Edge-Auth);
  assert.is_notset(bereq.http.Headwater-Access);
}

// @scope: pass
// @suite: only what was verified carries the secret, in vcl_pass
sub test_secret_pass {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "edge /channels/secret";
  set bereq.http.Headwater-Access = "edge /channels/secret";
  set bereq.http.Headwater-Edge-Auth = "forged";
  testing.call_subroutine("vcl_pass");
  assert.state(pass);
  assert.equal(bereq.http.Headwater-Edge-Auth, "edge-secret-for-tests");
  assert.is_notset(bereq.http.Headwater-Access);
  set req.http.Headwater-Access = "origin";
  set bereq.http.Headwater-Access = "x";
  set bereq.http.Headwater-Edge-Auth = "forged";
  testing.call_subroutine("vcl_pass");
  assert.state(pass);
  assert.is_notset(bereq.http.Headwater-Edge-Auth);
  assert.is_notset(bereq.http.Headwater-Access);
  unset req.http.Headwater-Access;
  set bereq.http.Headwater-Access = "x";
  set bereq.http.Headwater-Edge-Auth = "forged";
  testing.call_subroutine("vcl_pass");
  assert.state(pass);
  assert.is_notset(bereq.http.Headwater-Edge-Auth);
  assert.is_notset(bereq.http.Headwater-Access);
  set req.http.Headwater-Access = "unauthorized";
  set bereq.http.Headwater-Access = "x";
  set bereq.http.Headwater-Edge-Auth = "forged";
  testing.call_subroutine("vcl_pass");
  assert.state(pass);
  assert.is_notset(bereq.http.Headwater-Edge-Auth);
  assert.is_notset(bereq.http.Headwater-Access);
  set req.http.Headwater-Access = "xedge ";
  set bereq.http.Headwater-Access = "x";
  set bereq.http.Headwater-Edge-Auth = "forged";
  testing.call_subroutine("vcl_pass");
  assert.state(pass);
  assert.is_notset(bereq.http.Headwater-Edge-Auth);
  assert.is_notset(bereq.http.Headwater-Access);
  unset req.http.Headwater-Path;
  set req.http.Headwater-Access = "edge /app";
  set bereq.http.Headwater-Access = "x";
  set bereq.http.Headwater-Edge-Auth = "forged";
  testing.call_subroutine("vcl_pass");
  assert.is_notset(bereq.http.Headwater-Edge-Auth);
  assert.is_notset(bereq.http.Headwater-Access);
}

// @scope: fetch
// @suite: an answer of the origin to one reader is left as it is
sub test_fetch_origin {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "origin";
  set beresp.status = 204;
  set beresp.http.Cache-Control = "private, no-store";
  testing.call_subroutine("vcl_fetch");
  assert.state(pass);
  assert.equal(beresp.http.Cache-Control, "private, no-store");
  set beresp.status = 503;
  testing.call_subroutine("vcl_fetch");
  assert.error(690);
  set req.http.Headwater-Path = "history";
  set beresp.status = 503;
  testing.call_subroutine("vcl_fetch");
  assert.state(pass);
  assert.equal(beresp.http.Cache-Control, "private, no-store");
}

// @scope: fetch
// @suite: an answer to a verified crowd is kept as usual
sub test_fetch_edge {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "edge /channels/secret";
  set beresp.status = 200;
  set beresp.cacheable = true;
  set beresp.http.Content-Type = "text/event-stream";
  set beresp.http.Cache-Control = "public, max-age=20";
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.true(beresp.cacheable);
  assert.equal(beresp.http.Cache-Control, "public, max-age=20");
  set beresp.status = 503;
  testing.call_subroutine("vcl_fetch");
  assert.state(deliver);
  assert.equal(beresp.http.Headwater-Shed, "kept");
}

// @scope: error
// @suite: unauthorized: an EventSource stops, across origins too
sub test_refused_stream_unauthorized_cors {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/secret";
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "expired";
  set obj.status = 693;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  set req.http.Origin = "https://app.example";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.is_notset(obj.http.Access-Control-Allow-Origin);
  set req.url = "/channels/secret";
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "unauthorized";
  set obj.status = 691;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  set req.http.Origin = "https://app.example";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.is_notset(obj.http.Access-Control-Allow-Origin);
  assert.equal(obj.status, 204);
  assert.equal(obj.response, "No Content");
  assert.equal(testing.synthetic_body, "");
  assert.is_notset(obj.http.Headwater-Shed);
  assert.is_notset(obj.http.Content-Type);
}

// @scope: error
// @suite: unauthorized: an EventSource stops
sub test_refused_stream_unauthorized_plain {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/secret";
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "expired";
  set obj.status = 693;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  set req.url = "/channels/secret";
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "unauthorized";
  set obj.status = 691;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.equal(obj.status, 204);
  assert.equal(obj.response, "No Content");
  assert.equal(testing.synthetic_body, "");
  assert.is_notset(obj.http.Headwater-Shed);
  assert.is_notset(obj.http.Content-Type);
}

// @scope: error
// @suite: forbidden: an EventSource stops, across origins too
sub test_refused_stream_forbidden_cors {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/secret";
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "expired";
  set obj.status = 693;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  set req.http.Origin = "https://app.example";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.is_notset(obj.http.Access-Control-Allow-Origin);
  set req.url = "/channels/secret";
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "forbidden";
  set obj.status = 692;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  set req.http.Origin = "https://app.example";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.is_notset(obj.http.Access-Control-Allow-Origin);
  assert.equal(obj.status, 204);
  assert.equal(obj.response, "No Content");
  assert.equal(testing.synthetic_body, "");
  assert.is_notset(obj.http.Headwater-Shed);
  assert.is_notset(obj.http.Content-Type);
}

// @scope: error
// @suite: forbidden: an EventSource stops
sub test_refused_stream_forbidden_plain {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/secret";
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "expired";
  set obj.status = 693;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  set req.url = "/channels/secret";
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "forbidden";
  set obj.status = 692;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.equal(obj.status, 204);
  assert.equal(obj.response, "No Content");
  assert.equal(testing.synthetic_body, "");
  assert.is_notset(obj.http.Headwater-Shed);
  assert.is_notset(obj.http.Content-Type);
}

// @scope: error
// @suite: expired: an EventSource reconnects, across origins too
sub test_expired_stream_cors {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/secret";
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "expired";
  set obj.status = 693;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  set req.http.Origin = "https://app.example";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.is_notset(obj.http.Access-Control-Allow-Origin);
  assert.equal(obj.status, 200);
  assert.equal(obj.response, "OK");
  assert.equal(obj.http.Content-Type, "text/event-stream; charset=utf-8");
  assert.equal(obj.http.Headwater-Shed, "token-expired");
  assert.match(testing.synthetic_body, {"^retry: ([2-4][0-9]{3}|5000)\nevent: shed\ndata: \{"reason":"token-expired","retry_ms":([2-4][0-9]{3}|5000)\}\n\n$"});
}

// @scope: error
// @suite: expired: an EventSource reconnects
sub test_expired_stream_plain {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/secret";
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "expired";
  set obj.status = 693;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.equal(obj.status, 200);
  assert.equal(obj.response, "OK");
  assert.equal(obj.http.Content-Type, "text/event-stream; charset=utf-8");
  assert.equal(obj.http.Headwater-Shed, "token-expired");
  assert.match(testing.synthetic_body, {"^retry: ([2-4][0-9]{3}|5000)\nevent: shed\ndata: \{"reason":"token-expired","retry_ms":([2-4][0-9]{3}|5000)\}\n\n$"});
}

// @scope: error
// @suite: unauthorized: a history is refused in words
sub test_refused_history_unauthorized {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/secret/history";
  set req.http.Headwater-Path = "history";
  set req.http.Headwater-Access = "unauthorized";
  set obj.status = 691;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  set req.http.Origin = "https://app.example";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.is_notset(obj.http.Access-Control-Allow-Origin);
  assert.equal(obj.status, 401);
  assert.equal(obj.response, "Unauthorized");
  assert.equal(obj.http.Content-Type, "application/problem+json");
  assert.equal(obj.http.WWW-Authenticate, "Bearer");
  assert.match(testing.synthetic_body, "^\{[^{}]*\}$");
  assert.contains(testing.synthetic_body, "urn:headwater:problem:token");
  # what a browser can send
  assert.contains(testing.synthetic_body, "Authorization: Bearer");
  assert.contains(testing.synthetic_body, "?access_token=");
  assert.contains(testing.synthetic_body, "cookie headwater.");
  assert.contains(testing.synthetic_body, {""status":401,"});
  assert.is_notset(obj.http.Headwater-Shed);
  assert.not_contains(testing.synthetic_body, "test-secret-of-thirty-two-characters-and-more");
  assert.not_contains(testing.synthetic_body, "edge-secret-for-tests");
}

// @scope: error
// @suite: forbidden: a history is refused in words
sub test_refused_history_forbidden {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/secret/history";
  set req.http.Headwater-Path = "history";
  set req.http.Headwater-Access = "forbidden";
  set obj.status = 692;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  set req.http.Origin = "https://app.example";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.is_notset(obj.http.Access-Control-Allow-Origin);
  assert.equal(obj.status, 403);
  assert.equal(obj.response, "Forbidden");
  assert.equal(obj.http.Content-Type, "application/problem+json");
  assert.is_notset(obj.http.WWW-Authenticate);
  assert.match(testing.synthetic_body, "^\{[^{}]*\}$");
  assert.contains(testing.synthetic_body, "urn:headwater:problem:scope");
  assert.contains(testing.synthetic_body, {""status":403,"});
  assert.is_notset(obj.http.Headwater-Shed);
  assert.not_contains(testing.synthetic_body, "test-secret-of-thirty-two-characters-and-more");
  assert.not_contains(testing.synthetic_body, "edge-secret-for-tests");
}

// @scope: error
// @suite: expired: a history is refused in words
sub test_refused_history_expired {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/secret/history";
  set req.http.Headwater-Path = "history";
  set req.http.Headwater-Access = "expired";
  set obj.status = 693;
  set obj.response = "x";
  unset obj.http.Headwater-Shed;
  unset obj.http.Headwater-Cors;
  unset obj.http.Content-Type;
  set req.http.Origin = "https://app.example";
  testing.call_subroutine("vcl_error");
  assert.state(deliver);
  assert.equal(obj.http.Cache-Control, "private, no-store");
  assert.equal(obj.http.Headwater-Cors, "edge");
  assert.is_notset(obj.http.Access-Control-Allow-Origin);
  assert.equal(obj.status, 401);
  assert.equal(obj.response, "Unauthorized");
  assert.equal(obj.http.Content-Type, "application/problem+json");
  assert.equal(obj.http.WWW-Authenticate, "Bearer");
  assert.match(testing.synthetic_body, "^\{[^{}]*\}$");
  assert.contains(testing.synthetic_body, "urn:headwater:problem:token");
  assert.contains(testing.synthetic_body, "expired");
  assert.contains(testing.synthetic_body, {""status":401,"});
  assert.is_notset(obj.http.Headwater-Shed);
  assert.not_contains(testing.synthetic_body, "test-secret-of-thirty-two-characters-and-more");
  assert.not_contains(testing.synthetic_body, "edge-secret-for-tests");
}

// @scope: error
// @suite: the same numbers on other paths are not ours
sub test_refused_foreign {
  set req.url = "/app";
  set obj.status = 691;
  testing.call_subroutine("vcl_error");
  assert.equal(obj.status, 691);
  assert.is_notset(obj.http.Cache-Control);
  set req.http.Headwater-Path = "history";
  set obj.status = 694;
  testing.call_subroutine("vcl_error");
  assert.equal(obj.status, 694);
  set obj.status = 600;
  testing.call_subroutine("vcl_error");
  assert.equal(obj.status, 600);
}

// @scope: deliver
// @suite: a verified reader may keep nothing, and no secret goes out
sub test_deliver {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.http.Headwater-Path = "stream";
  set req.http.Headwater-Access = "edge /channels/secret";
  set resp.http.Cache-Control = "public, max-age=20";
  set resp.http.Expires = "x";
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Control, "private, no-store");
  assert.is_notset(resp.http.Expires);
  assert.is_notset(resp.http.Headwater-Edge-Auth);
  assert.is_notset(resp.http.Headwater-Access);
  assert.is_notset(resp.http.Access-Control-Allow-Origin);
  # the public may
  unset req.http.Headwater-Access;
  set resp.http.Cache-Control = "public, max-age=20";
  set resp.http.Expires = "x";
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Control, "public, max-age=20");
  assert.equal(resp.http.Expires, "x");
  set req.http.Headwater-Access = "origin";
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Control, "public, max-age=20");
}

// @scope: recv
// @suite: a pattern has up to eight parts before its star
sub test_depth {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater, "private", "a.b.c.d.e.f.g.h.*, n.n.n.n.n.n.n.n.n.n.n.n");
  # below eight parts
  unset req.http.Authorization;
  set req.url = "/channels/a.b.c.d.e.f.g.h.i";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  # far below them
  unset req.http.Authorization;
  set req.url = "/channels/a.b.c.d.e.f.g.h.i.j.k.l.m";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  # eight parts
  unset req.http.Authorization;
  set req.url = "/channels/a.b.c.d.e.f.g.h";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  # eight other parts
  unset req.http.Authorization;
  set req.url = "/channels/a.b.c.d.e.f.g.x.i";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  # a long name in the list
  unset req.http.Authorization;
  set req.url = "/channels/n.n.n.n.n.n.n.n.n.n.n.n";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  # a part of it
  unset req.http.Authorization;
  set req.url = "/channels/n.n.n.n.n.n.n.n.n.n.n";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  # granted in eight parts
  set req.url = "/channels/a.b.c.d.e.f.g.h.i";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEuYi5jLmQuZS5mLmcuaC4qIn0.moCOTjKl4MuW9sY8T1wDtCNAQCOLjy8dPeEb3PFLIE4"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/a.b.c.d.e.f.g.h.i");
  # granted in one
  set req.url = "/channels/a.b.c.d.e.f.g.h.i.j.k.l.m";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEuKiJ9.XBE7DaAzKhAsakEZQ8poLISSC6HnKVp8cKOjgU1QSqo"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/a.b.c.d.e.f.g.h.i.j.k.l.m");
  # granted by name
  set req.url = "/channels/a.b.c.d.e.f.g.h.i.j.k.l.m";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEuYi5jLmQuZS5mLmcuaC5pLmouay5sLm0ifQ.1PDvvyK0CCz8Rr2pdOrSb7nPQS_MbY1EnVqrvwf-xiY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/a.b.c.d.e.f.g.h.i.j.k.l.m");
  # another eight
  set req.url = "/channels/a.b.c.d.e.f.g.h.i";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEuYi5jLmQuZS5mLmcueC4qIn0.of3EhScZcFZiNVpBJt81OyPHlnO1O49BuuEazDQWF5Y"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # granted in nine, which is too deep
  set req.url = "/channels/a.b.c.d.e.f.g.h.i.j";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOmEuYi5jLmQuZS5mLmcuaC5pLioifQ.eZRxx1oLkDgP6-SklqWtWCegFeVMWj83XDwIwZ3t0N8"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
}

// @scope: recv
// @suite: a private pattern of nine parts is a slip
sub test_too_deep {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.table_set(headwater, "private", "a.b.c.d.e.f.g.h.i.*");
  # anything
  unset req.http.Authorization;
  set req.url = "/channels/open";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
}

// @scope: recv
// @suite: names with dots in odd places
sub test_dots {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # two dots
  unset req.http.Authorization;
  set req.url = "/channels/prices..eur";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  # a dot at the end
  unset req.http.Authorization;
  set req.url = "/channels/prices.";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  # none
  unset req.http.Authorization;
  set req.url = "/channels/prices";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  # another beginning
  unset req.http.Authorization;
  set req.url = "/channels/pricesx.eur";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  # a dot at the end
  set req.url = "/channels/prices.";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy4qIn0.acA0T27A5IHpTJy03ZWTo8naimNMxUcSBotdhmN5hew"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/prices.");
  # two dots
  set req.url = "/channels/prices..eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy4uKiJ9.UUH2D5e5ltOOSQWB8zO8-5iHGAmg1Uli9fR5LXozdTk"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/prices..eur");
  # one dot is not two
  set req.url = "/channels/prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy4uKiJ9.UUH2D5e5ltOOSQWB8zO8-5iHGAmg1Uli9fR5LXozdTk"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
}

// @scope: recv
// @suite: names of a list are covered each in its own way
sub test_mixed_lists {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # by name and by pattern
  set req.url = "/channels/secret,prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCBzdWJzY3JpYmU6cHJpY2VzLioifQ.rboS6jnJIn7UN_Qvgl-CPJs3fJNx5fVgYx0YtrkTEWU"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret,prices.eur");
  # all by the star
  set req.url = "/channels/secret,prices.eur";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOioifQ.7_jTtJhI3_rRyQWSM0SVWelNvRLWcbcvbtYpZsmibbo"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret,prices.eur");
  # twice the same
  set req.url = "/channels/secret,secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.nytYtM3oQgGpzxyD08_oBPYcSt4S0l3KzjamsV2ntJw"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret,secret");
  # two by one pattern
  set req.url = "/channels/prices.eur,prices.usd";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy4qIn0.acA0T27A5IHpTJy03ZWTo8naimNMxUcSBotdhmN5hew"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/prices.eur,prices.usd");
  # one of two of one pattern
  set req.url = "/channels/prices.eur,prices.usd";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnByaWNlcy5ldXIifQ.seI1CFKc_ifYHUt0stOmqueoLJ3M7SBQSjp9AHYVWFI"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # the public one alone
  set req.url = "/channels/open,secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOm9wZW4ifQ.skJdHqE3Ed2sut6MoAVz77q1bdo8a-Lk9Zi1GyMS_Xk"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # the private one alone
  set req.url = "/channels/open,secret,free";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.nytYtM3oQgGpzxyD08_oBPYcSt4S0l3KzjamsV2ntJw"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/open,secret,free");
  # a name that begins like another
  set req.url = "/channels/secret,prices.e";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCBzdWJzY3JpYmU6cHJpY2VzLmV1ciJ9.zWFthxBmwQZMA_d-F7Db8aJMEHyHhESd9NzLmOQkXWw"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
}

// @scope: recv
// @suite: a word of the scope that is not plain grants nothing
sub test_scope_words {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  # a bare name
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic2VjcmV0In0.su72Vrr-LSzVY4-9BhMReEcAXNCft5I5rHrhWbYApo0"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # in front of the word
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoieHN1YnNjcmliZTpzZWNyZXQifQ.4p6nblRfSCcptFNLDLosx_ezpEzIZeCGCotQPPWBmYA"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # the word twice
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnN1YnNjcmliZTpzZWNyZXQifQ.BXsGGEIuUZrMUfYK7npJoT_3wk6JYNb0uYJVy6cvk54"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # an ampersand
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngmc2VjcmV0In0.q46AqM3pcdkVCH5l4j-kmOvjL3uoM-eU3edysAaTVBg"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # an equals sign
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldD1zZWNyZXQifQ.l3uVQChfIClFdGOd9o7MccoqMnLRPWGMB5Ptj6Bvfjc"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # a comma
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOngsc2VjcmV0In0.juLMTKe413QDe1jlsQsrymCWYsfshzdR4pI4mD1NcXc"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # a question mark
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOj9zZWNyZXQifQ.HhWYGreB1Iza6vVP_7p5M4mh9bHOQU_8M1x8T5tooiQ"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # an escape
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiU3M2VjcmV0In0.Np8E3_3J_pMSgfebGUfQSZeieA0w0xUc-rio24kXdsE"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # two stars
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOioqIn0.0NupcDfo3TeD-Ttqugg7H67MDqcg2mnAmHSxcuCgsb8"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # a star in the middle
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiouc2VjcmV0In0.RRn8PhE8YOSvqUT-09tHTOv8pcXlq7TYnK-F6g8j8Eo"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # a star at its end
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCoifQ.ybeelhrPHt9Jfqxib3xQK0hifcxZfbABfLGdU2L2Js4"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # DEL
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnh_c2VjcmV0In0.kjJocA1xlrrmkbAvs12NOGR__kiUO171MrbB9bBSU4Q"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # bytes that are no text
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnj_c2VjcmV0In0.m8e0VWditDyI5aJdzrFcw2c2YHxjop9a4P601v844iw"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # another right
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoicHVibGlzaDpzZWNyZXQgcHVibGlzaDoqIn0.c03LWv2fovDOa5KnlsYqQVGDjZokm5AV4TMQxT-L9tc"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # nothing after the word
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOiBzZWNyZXQifQ.yuZTT0hJqmjWNPmrDV32bj3W3HWO7meZZECtLHwdoBE"};
  testing.call_subroutine("vcl_recv");
  assert.error(692);
  # beside a plain one
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic2VjcmV0IHhzdWJzY3JpYmU6eCAgc3Vic2NyaWJlOnNlY3JldCBzdWJzY3JpYmU6KiogIn0.5hI3cK9EzAPjjm7DR-3enx-O7dQFaJ2Rrjb3dmZs140"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
}
