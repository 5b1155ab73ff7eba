# @scope: hit
# A failure of the origin is kept for a second (see fetch.vcl) with the body that
# came with it, as vcl_fetch cannot write one. A hit on it, or on a shield's answer
# to such a failure, is answered by error.vcl instead, with a wait of its own.

if (req.http.Headwater-Path == "stream" && obj.http.Headwater-Shed ~ "^(kept|edge)$") {
  error 690 "Headwater shed";
}
