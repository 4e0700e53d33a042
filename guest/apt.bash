# apt: what guest/fetch and guest/mkimage share: which mirror the machine's own apt names. Source it.
# No mirror stands in this repository.

# apt_sources CODENAME SUITE...: a source list for these suites, on the archive that the machine's apt
# names, one-line or deb822 (apt prints both alike); with CODENAME's security suite, if the machine has
# one. Fails if there is no archive with 'main'.
apt_sources() {
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg option='' codename=$1
	shift
	[ -r $keyring ] && option="[signed-by=$keyring] "
	apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
		'Created-By: Packages' 2>/dev/null | sort -u |
	awk -v option="$option" -v code="$codename" -v suites="$*" '
		$3 != "main" { next }
		$2 ~ /^[a-z]+$/ && archive == "" { archive = $1 }
		$2 ~ /-security$/ && security == "" { security = $1 }
		END {
			if (archive == "")
				exit 1
			count = split(suites, suite, " ")
			for (i = 1; i <= count; i++)
				print "deb " option archive " " suite[i] " main"
			if (security != "")
				print "deb " option security " " code "-security main"
		}'
}
