# @scope: hash
# The cursor selects the content of a stream, so it is part of the key. Vary:
# Last-Event-ID would have the same effect, but it puts all cursors of a channel
# under one hash, as variants that must be searched, and it collapses requests
# only when the response is known.

if (req.http.Headwater-Path == "stream" && req.http.Last-Event-ID) {
  # The mark separates the two: otherwise a host and a cursor could be
  # concatenated to the same text as another pair.
  set req.hash += "#";
  set req.hash += req.http.Last-Event-ID;
}
