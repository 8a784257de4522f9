"""What a shopper's answer means: STOP, START, HELP or something else.

A shopper may withdraw consent "by any reasonable means" (47 CFR 64.1200(a)(10); GDPR article 7(3)),
in any language and not only with the carrier's keywords. So STOP is read generously: a text wrongly
taken for STOP costs a merchant one shopper, a STOP that is missed breaks the law. START lifts a
suppression, so it is read strictly: the whole body must be one of its words.

The words are tables, one per language, for the languages of the countries that a text can be priced
for. Case, accents, punctuation, digits and emoji do not matter, neither in a body nor in the tables.
An entry is a word or a phrase; in a phrase `a/b` is a choice, `nebesiųsk*` any ending, a lone `*` up
to three words, and a leading `^` the beginning of the body.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from cartwake.messages.opt_out import every_reply_wording


class Intent(enum.StrEnum):
    """What an inbound text asks for."""

    STOP = "stop"
    START = "start"
    HELP = "help"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class Words:
    """One language's table: entries separated by commas."""

    alone: str  # STOP when it is the whole body, save words of courtesy
    anywhere: str  # STOP wherever it stands
    harmless: str = ""  # taken out of the body before `anywhere` is looked for
    start: str = ""  # START when it is the whole body
    help: str = ""  # HELP when it is the whole body
    courtesy: str = ""  # says nothing either way


TABLES = {
    "en": Words(
        alone="""stop, stop all, go away, unsubscribe, end, quit, revoke, opt out, cancel, remove, unsub, td, no,
            nope, halt, enough, spam, delete, no more, cease, not interested, stpo, sotp""",
        anywhere="""stop, unsub, unsubscrib*, unsuscrib*, unsubcrib*, opt out, optout, opt me/my out, opting out,
            revoke/withdraw * consent/permission, revoke, leave me alone, ^go away, take me/my/us * off, remove me/us,
            remove my/this * number/phone/data/details/information, delete me/my * number/phone, delete me,
            lose my number, off your/the/this list, no longer * text*/message*/contact*/receive*,
            no more text*/message*/sms/msg*/spam/of/from/marketing/ads,
            dont/never text*/message*/msg/contact*/sms*/write*/bother*/spam*, dont/never send me/any/more/us,
            do not text*/message*/contact*/sms*/write*/bother*/disturb/spam*, do not send me/any/more/us,
            dont/not want * text*/message*/sms/msg*,
            quit/end/cease text*/messag*/send*/contact*/spam*/bother*/it/this/these,
            end/cease the/your/all text*/messag*,
            cancel text*/messag*/sms/subscription/all/everything/it/this/these, cancel my/the subscription,
            cease and desist, not interested, wrong number/person, not my number, spamming, fuck/piss/bugger off,
            block me, stpo, sotp""",
        harmless="""bus/tram/train/truck/metro/pit/next/last stop, one stop shop*, stop sign/light,
            will/ill/can/could/may/might/would/well/gonna stop by, can/could/may i stop by,
            want/like/love/going/plan/planning/hope to stop by, i will stop in/over, ill stop in/over,
            ^dont/never stop, ^please/pls/no dont stop, ^do not stop, ^please do not stop""",
        start="start, unstop, yes",
        help="help, info",
        courtesy="please, pls, plz, thanks, thank, you, thx, now, kindly",
    ),
    "de": Words(
        alone="""stopp, stoppen, ende, beenden, abmelden, abmeldung, abbestellen, kündigen, kuendigen, kündigung,
            kuendigung, abbrechen, stornieren, aufhören, genug, schluss, austragen, löschen, nein, widerruf,
            kein interesse, keine sms""",
        anywhere="""stopp*, abmeld*, meld*/melden * ab, abbestell*, trag*/tragen * mich/uns * aus, austragen,
            aufhören, aufhoeren, hör*/hören/hoer* auf, hör*/hören/hoer* sie/bitte/endlich/doch auf,
            hören/hoeren sie bitte/endlich auf, keine/kein * sms/nachricht*/werbung*/reminder/erinnerung* * mehr,
            bitte keine * mehr/sms/nachricht*/werbung*, keine/kein weitere* sms/nachricht*/werbung*,
            möchte*/moechte*/will/wollen/wünsche*/brauche * keine/kein * sms/nachricht*/werb*,
            möchte*/moechte*/will/wollen * nichts mehr,
            nicht/nie/nichts mehr/wieder * schreib*/schick*/send*/kontakt*/sms/anschreib*/zusend*/belästig*/belaestig*,
            schreib*/schick*/send*/kontaktier* * nicht/nichts/nie * mehr, schreib*/kontaktier* mir/mich/uns nicht,
            schick*/send* * mir/uns keine/nichts, kein interesse, lass*/lassen * in ruhe,
            lösch*/loesch*/entfern*/streich* * nummer/mich/daten, aus * verteiler, falsche nummer, nicht meine nummer,
            widerrufe, widerruf, einwilligung * zurück*, unterlass*, belästig*, belaestig*, verpiss*""",
        harmless="^nicht aufhören, ^bitte nicht aufhören",
        start="anmelden, fortsetzen",
        help="hilfe",
        courtesy="bitte, danke, dankeschön, vielen, dank, sofort, jetzt",
    ),
    "fr": Words(
        alone="""arrêt, arrêter, arrêtez, arrête, stop sms, fin, désabonner, désinscription, désinscrire, annuler,
            annulez, quitter, terminer, supprimer, assez, ça suffit, non, pas intéressé, pas intéressée, résilier""",
        anywhere="""stopper, stoppez, arrêt, arrête, arrêter, arrêtez, cessez, cesser, désabonn*, désinscri*,
            plus de/aucun sms/message*/texto*/pub*/relance*, plus * recevoir, pas de sms/message*/texto*/pub*,
            ne * plus * sms/message*/texto*/pub*/envoy*/écri*/contact*/sollicit*, ne veux/souhaite/voulons plus,
            m'envoyez/m'envoie/m'envoyer/m'écrivez/m'écris/n'envoyez/n'écrivez plus/pas, plus m'envoyer/m'écrire,
            ne me/nous contact*/dérang*/écri*/sollicit*/text* plus/pas,
            veux/voulons/souhaite * pas * sms/message*/texto*/pub*, retir*/supprim*/enlev*/effac*/ôtez moi,
            retir*/supprim*/enlev*/effac* * numéro/liste/données, laisse/laissez moi/nous tranquille*,
            mauvais/faux numéro, pas mon numéro, pas le bon numéro, erreur de numéro, trompé* de numéro,
            retire/révoque * consentement/accord, pas intéressé*, fiche/fichez/fous/foutez * la paix""",
        harmless="arrêt de/du bus/tram/métro/car, arrêt bus/tram/métro",
        start="reprendre",
        help="aide",
        courtesy="merci, svp, stp, s'il, vous, te, plaît, bonjour, immédiatement",
    ),
    "es": Words(
        alone="""baja, alto, parar, para, parad, paren, pare, basta, fin, cancelar, cancela, anular, detener, salir,
            no quiero, no me interesa, borrar, basta ya""",
        anywhere="""dar*/dad*/denme/deme/dame/doy/causar/tramit*/solicit*/quiero/pido * baja, baja sms, desuscri*,
            desapunt*, cancelar * suscripción, no más sms/mensaje*/publicidad/spam,
            no quiero/queremos/deseo/deseamos * sms/mensaje*/publicidad/recibir*/recordatorio*,
            no me/nos/le/les envíes/envíe/envíen/enviéis/mandes/mande/manden/mandéis, no molest*,
            no me/nos/le/les molest*,
            no me/nos/le/les escribas/escriba/escriban/escribáis/contactes/contacte/contacten/contactéis,
            no envíes/envíe/envíen/enviéis/enviar/mandes/manden/mandéis/mandar/escrib* más,
            deja*/deje*/dejen * de enviar*/mandar*/escribir*/molestar*/contactar*,
            dejadme/déjenme/déjame/déjeme en paz, para*/paren/pare de enviar*/mandar*/escribir*,
            borra*/borre*/elimin*/quit* * número/datos/lista, sácame, bórrame, bórrenme, borradme, elimíname,
            elimínenme, quítame, quítenme, quitadme, sáquenme, sacadme, número equivocado/erróneo/incorrecto,
            no es mi número, equivocado/equivocaron/equivoca * de número, retiro/revoco * consentimiento,
            no me interesa""",
        start="alta, iniciar, reanudar",
        help="ayuda",
        courtesy="por, favor, gracias, ya",
    ),
    "pl": Words(
        alone="rezygnuję, rezygnacja, koniec, zatrzymaj, anuluj, wypisz, nie, dość, wystarczy, odwołuję, usuń, pomyłka",
        anywhere="""rezygnuj*, zrezygnow*, rezygnacja, wypisz*, wypisać, wypisuję,
            nie wysyłaj/wysyłajcie/wysyłać/przysyłaj/przysyłajcie/przysyłać, nie pisz/piszcie/pisać,
            nie chcę/chcemy * sms*/wiadomości/reklam*/otrzymywać/dostawać/esemes*, nie życzę/życzymy sobie,
            nie kontakt*, nie nęk*, przestań*, przestać, usuń*/usunąć/skasuj* * numer*/mnie/dane, zły/błędny numer,
            nie mój numer, nie jest mój numer, pomyłka, cofam/wycofuję/odwołuję * zgod*, daj*/dajcie mi * spokój,
            odczep*, żadnych * sms*/wiadomości/reklam*, koniec z sms*, spadaj*""",
        start="wznów, wznawiam",
        help="pomoc",
        courtesy="proszę, dziękuję, dzięki, natychmiast",
    ),
    "lt": Words(
        alone="""stabdyti, stabdyk, stabdykite, atsisakau, atsisakyti, nutraukti, nutraukite, baikit, baikite, baik,
            gana, pakaks, užteks, ne, nenoriu, nereikia, nebereikia, nebenoriu, atšaukti, ištrinti""",
        anywhere="""nebesiųs*, nesiųsk*, nesiųsti, nebesiuntinė*, nesiuntinė*, neberašy*, nerašyk*, nerašyti,
            neberašinė*, nerašinė*, nebetrukdyk*, netrukdyk*, nesikreipk*, nebesikreipk*, nebenoriu, nebereikia,
            nepageidauju, nenoriu * gauti/žinu*/sms/pranešim*/reklam*, nereikia * žinu*/sms/pranešim*/reklam*,
            atsisakau, atsisakyti, atsisakyčiau, atsisakom*, atsiprenumer*, išregistruok*, išbrauk*,
            pašalink* * mane/numer*, ištrink* * mane/numer*, nustok*, liaukit*, liaukis, stabdyk*, sustabdyk*,
            nutrauk*, baik* siųsti/siuntinėti/rašyti/rašinėti, atsikabin*, atstok*, palik* mane ramyb*,
            ne mano numeris, ne tas numeris, ne tuo numeriu, klaidingas numeris, supainioj* numer*,
            atšauk* * sutikim*, jokių * žinu*/sms/pranešim*/reklam*""",
        start="pradėti, prenumeruoti",
        help="pagalba, informacija",
        courtesy="prašau, prašom, prašome, ačiū, dėkui, daugiau",
    ),
    "ru": Words(
        alone="""стоп, отписка, отмена, отказ, хватит, прекратите, прекратить, конец, довольно, нет, не надо,
            не нужно, не интересно, неинтересно, удалить, спам""",
        anywhere="""стоп, отпис*, отпиш*, отказываюсь, откажусь, прекрат*, прекращ*, перестан*, ^хватит,
            хватит * писать/слать/присылать/отправлять/спам*,
            не пиши*/пишете/присылай*/отправляй*/шли/шлите/беспокой*/звони*/спамь*, больше не надо/нужно,
            не надо/нужно * писать/присылать/слать/отправлять/смс/sms/сообщени*/рассылк*,
            не хочу/хотим/желаю * получать/смс/sms/сообщени*/рассылк*, никаких * смс/sms/сообщени*/рассыл*,
            уберите/удалите/убери/удали * номер/меня, не мой номер, ошиблись номером, не тот номер, не туда попали,
            неверный номер, оставьте/оставь * в покое, отстань*, отвали*, отзываю * согласие, ^достали""",
        start="старт, начать, возобновить",
        help="помощь, помогите, инфо, справка",
        courtesy="пожалуйста, спасибо, плиз",
    ),
    "lv": Words(
        alone="apturēt, atteikties, atteikt, beigt, pietiek, nē, atcelt, izbeigt, atrakstīt",
        anywhere="""nesūtiet, nesūti, nesūtīt, nerakstiet, neraksti, netraucē*, atrakst*, atsakos, atteikties,
            beidziet, pārtrauciet, izbeidziet, izdzēs* * mani/numur*,
            negribu/nevēlos * saņemt/ziņ*/sms/īsziņ*/reklām*, nav mans numurs, nepareizs numurs, lieciet mani mierā,
            atsaucu * piekrišanu""",
        start="sākt, atsākt",
        help="palīdzība",
        courtesy="lūdzu, paldies, vairs, vairāk",
    ),
    "et": Words(
        alone="lõpeta, lõpetage, lõpp, katkesta, tühista, loobu, loobun, loobuda, aitab, ei, peata",
        anywhere="""lõpeta, lõpetage, loobun, ärge/ära saatke/saada/kirjutage/kirjuta/tülitage/tülita/häirige,
            ärge/ära * enam * saatke/saada/kirjutage/kirjuta, enam * sõnumeid, jätke/jäta mind rahule,
            ei soovi/taha * sõnum*/sms*/reklaam*/teateid/saada, eemalda*/kustuta* * number/numbri/mind/mu,
            vale number, pole/ole minu/mu number, võtan * nõusoleku * tagasi""",
        start="alusta, jätka",
        help="abi",
        courtesy="palun, aitäh, tänan, rohkem",
    ),
    "fi": Words(
        alone="seis, lopeta, lopettakaa, lopetus, peruuta, peru, poista, riittää, ei",
        anywhere="""lopeta, lopettakaa, lopettaa, älä/älkää * lähet*/viest*/tekstaa/tekstatko/häirit*,
            ei enää/enempää * viest*/tekstiviest*/sms*/mainok*, en halua/haluaisi * viest*/tekstiviest*/sms*/mainok*,
            poista*/poistakaa * numero*/minut/tieto*, väärä numero, ei ole minun numero*, ei ole numeroni,
            jättäkää/jätä * rauhaan, peru*/perun * suostumu*""",
        start="aloita, jatka",
        help="apua, ohje, ohjeet",
        courtesy="kiitos, kiitti, heti",
    ),
    "nl": Words(
        alone="stoppen, einde, afmelden, annuleren, genoeg, nee, uitschrijven, opzeggen, beëindigen, geen sms",
        anywhere="""stoppen, afmelden, meld * af, uitschrijven, schrijf * uit, opzeggen, hou * op met,
            geen * sms*/bericht*/reclame*/appjes/spam * meer, wil * geen * sms*/bericht*/reclame*,
            niet meer * sturen/stuur/sms*/appen/berichten/contact*/lastig, stuur * niet/niets/geen * meer,
            laat me/mij/ons * rust, verwijder * nummer/mij/me/gegevens, verkeerd nummer, niet mijn nummer,
            trek * toestemming * in, rot op""",
        start="hervatten",
        help="hulp",
        courtesy="alstublieft, alsjeblieft, aub, ajb, bedankt, dank, u, je, wel",
    ),
    "it": Words(
        # Not "fine", its word for "end": English shoppers answer "Fine".
        alone="basta, ferma, fermati, fermatevi, cancella, cancellami, annulla, disattiva, rimuovi, revoca",
        anywhere="""disiscri*, cancellatemi, cancellami, cancella*/elimina*/rimuov* * numero/dati,
            basta * messagg*/sms/pubblicità, non * più * messagg*/sms/scriv*/mand*/invi*/contatt*/ricev*,
            non inviat*/mandat*/scrivet*/contattat*/mandar*/inviar*,
            non voglio/vogliamo/desidero * messagg*/sms/pubblicità/ricevere,
            non mi/ci inviat*/mandat*/scriv*/contattat*/disturbat*, smett*, toglietemi, toglimi, rimuovetemi,
            rimuovimi, numero sbagliato/errato, non è il mio numero, lasciatemi/lasciami in pace,
            revoco/ritiro * consenso""",
        start="inizia, riprendi",
        help="aiuto",
        courtesy="per, favore, piacere, grazie, subito",
    ),
    "pt": Words(
        alone="parar, parem, sair, remover, fim, chega, não, cancelar",
        anywhere="""parem, pare de, deixe*/deixem de enviar/mandar/incomodar,
            não quero/queremos/desejo * sms/mensage*/publicidade/receber,
            não * mais * sms/mensage*/envie*/enviem/mande*/receber,
            não me/nos envie*/enviem/mande*/mandem/contacte*/contactem/incomode*/escreva*,
            não enviem/envie/mandem/contactem/incomodem, cancele*/cancelar * subscri*, anul* * subscri*,
            remov*/apag* * número/lista/dados, removam me, retirem me, remova me, número errado/enganado,
            não é o meu número, deixem/deixe me em paz, retiro/revogo * consentimento""",
        start="retomar",
        help="ajuda",
        courtesy="obrigado, obrigada, se, faz",
    ),
    "sv": Words(
        alone="stoppa, sluta, slut, avsluta, avregistrera, avbryt, nej, avanmäl, säg upp, upphör",
        anywhere="""stoppa, sluta, avregistrer*, avanmäl*, avprenumerer*, inga/inte fler sms/meddelande*,
            inga sms/meddelande*, skicka/skriv inte/inga/inget, skicka/skriv * inte fler/mer/längre, kontakta * inte,
            vill inte * sms/meddelande*/reklam, ta bort mig/mitt/numret/nummer*, fel nummer, inte mitt nummer,
            lämna mig ifred, lämna mig i fred, återkallar * samtycke""",
        harmless="^sluta inte",
        start="starta, börja",
        help="hjälp",
        courtesy="tack, snälla, genast",
    ),
    "da": Words(
        alone="slut, afmeld, afslut, ophør, frameld, nej, annuller, opsig",
        anywhere="""afmeld*, frameld*, afregistrer*, stoppe, ikke/ingen flere sms*/beskeder/reklame*,
            ingen sms*/beskeder, send/skriv/kontakt ikke, send/skriv/kontakt mig/os ikke, hold * op med,
            vil/ønsker ikke * modtage/sms*/beskeder/flere, lad mig være, slet/fjern mig/mit/nummer*, forkert nummer,
            ikke mit nummer, lad mig i fred, trækker * samtykke""",
        start="tilmeld, genoptag",
        help="hjælp",
        courtesy="tak, venligst, straks",
    ),
    "no": Words(
        alone="slutt, avslutt, avmeld, meld av, nei, kanseller, stoppe",
        anywhere="""avmeld*, meld meg av, stoppe, slutt å, ingen flere/fler sms*/melding*, ingen sms*/melding*,
            ikke send/skriv/kontakt, send/skriv/kontakt ikke, send/skriv/kontakt meg/oss ikke,
            vil/ønsker ikke * motta/sms*/melding*/flere, slett/fjern meg/mitt/nummer*, feil nummer, ikke mitt nummer,
            la meg være, la meg i fred, trekker * samtykke""",
        start="gjenoppta",
        help="hjelp",
        courtesy="takk, vennligst",
    ),
}

# Letters that do not decompose into a base letter and a mark, and the one emoji that is a word.
_UNMARKED = str.maketrans(
    {"ł": "l", "ø": "o", "æ": "ae", "œ": "oe", "đ": "d", "🛑": " stop "} | dict.fromkeys("'’‘`´ʼ", "")
)
_NOT_A_LETTER = re.compile(r"[\W\d_]+")
_STRETCHED = re.compile(r"(.)\1{2,}")


def fold(text: str) -> str:
    """`text` as lower-case words of unmarked letters with single spaces between them ("Arrêtez !!" → "arretez").

    Apostrophes vanish ("don't" → "dont") and stretched letters shrink ("stoppp" → "stop").
    """
    # Folded again, because only decomposing turns a letter of a fancy font ("𝗦𝗧𝗢𝗣") into a plain one.
    decomposed = unicodedata.normalize("NFKD", text.casefold().translate(_UNMARKED)).casefold()
    unmarked = "".join(char for char in decomposed if not unicodedata.combining(char))
    return _STRETCHED.sub(r"\1", _NOT_A_LETTER.sub(" ", unmarked)).strip()


def intent(body: str, opt_out_type: str | None) -> Intent:
    """What an inbound text asks for.

    `opt_out_type` is the carrier's own reading (STOP, START, HELP or none). Its STOP is final, because
    it has blocked the number by then. Its START and HELP are not taken on trust: the body decides.
    """
    words = fold(body)
    if body.rstrip().endswith(_CLOSING_QUOTES):
        # A reaction quotes our text: Liked “Acme: your cart ... Reply STOP to opt out”.
        words = _OUR_WORDING.sub(" ", words)
    if (opt_out_type or "").strip().upper() == "STOP" or _is_stop(words):
        return Intent.STOP
    whole = words.replace(" ", "")
    if whole in _START:
        return Intent.START
    return Intent.HELP if whole in _HELP else Intent.OTHER


def _is_stop(words: str) -> bool:
    blunt = "".join(word for word in words.split() if word not in _COURTESY)
    # Joined, so that "STOP ALL", "opt-out" and "S T O P" are words too.
    return blunt in _STOP_ALONE or _STOP_ANYWHERE.search(_HARMLESS.sub(" ", words)) is not None


def _entries(tables: Iterable[str]) -> list[str]:
    return [entry.strip() for table in tables for entry in table.split(",") if entry.strip()]


def _joined(tables: Iterable[str]) -> frozenset[str]:
    """Entries as whole bodies, without their spaces."""
    return frozenset(fold(entry).replace(" ", "") for entry in _entries(tables))


def _phrases(tables: Iterable[str]) -> re.Pattern[str]:
    """One pattern for all entries, to be searched for in a folded body."""
    return re.compile("|".join(sorted({_phrase(entry) for entry in _entries(tables)})))


def _phrase(entry: str) -> str:
    start = "^" if entry.startswith("^") else r"(?<!\S)"
    pattern = ""
    for slot in entry.removeprefix("^").split():
        if slot == "*":
            pattern += r"(?: \S+){0,3}?"
        else:
            choices = [fold(choice) + (r"\S*" if choice.endswith("*") else "") for choice in slot.split("/")]
            pattern += (" " if pattern else "") + "(?:" + "|".join(choices) + ")"
    return start + pattern + r"(?!\S)"


_CLOSING_QUOTES = ('"', "”", "“", "»", "’", "'")
_OUR_WORDING = re.compile("|".join(sorted({fold(words) for words in every_reply_wording()}, key=len, reverse=True)))

_STOP_ALONE = _joined(words.alone for words in TABLES.values())
_START = _joined(words.start for words in TABLES.values())
_HELP = _joined(words.help for words in TABLES.values())
_COURTESY = _joined(words.courtesy for words in TABLES.values())
_STOP_ANYWHERE = _phrases(words.anywhere for words in TABLES.values())
_HARMLESS = _phrases(words.harmless for words in TABLES.values())
