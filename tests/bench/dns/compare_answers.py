"""What of an answer an app could notice."""
import dns.flags
import dns.rcode


def summary(query, answer):
    def section(rrsets):
        return sorted((r.name.canonicalize().to_text(), r.rdtype,
                       rdata.to_digestable().hex())
                      for r in rrsets for rdata in r)
    question = answer.question[0] if answer.question else None
    return {
        "rcode": dns.rcode.to_text(answer.rcode()),
        "flags": {f for f in dns.flags.to_text(answer.flags).split()
                  if f in ("TC", "RA", "RD", "QR", "CD", "AD")},
        "question": question.name.labels if question else None,
        "edns": answer.edns,
        "answer": section(answer.answer),
        "authority": section(answer.authority),
        "ttls": sorted(r.ttl for r in answer.answer),
    }


def differences(one, other):
    """What an app could notice. TTLs run: a few seconds are no difference."""
    found = [k for k in ("error", "rcode", "flags", "question", "edns",
                         "answer", "authority")
             if one.get(k) != other.get(k) or k == "error" in one]
    if not found and any(abs(a - b) > 5
                         for a, b in zip(one["ttls"], other["ttls"])):
        found.append("ttls")
    return found
