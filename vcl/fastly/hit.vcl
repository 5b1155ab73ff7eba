# @scope: hit
# A refusal of the origin is kept for a second (see fetch.vcl), but with the
# body that came with it, as vcl_fetch cannot write one. Whoever hits it gets
# the real answer from error.vcl instead, with a wait of their own.

if (req.http.Headwater-Path == "stream" && obj.http.Headwater-Shed == "edge") {
  error 690 "Headwater shed";
}
